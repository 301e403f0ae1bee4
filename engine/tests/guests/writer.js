// Appends a byte to the file that it is given and says "ok" or what the error is.

const fs = require("fs");

const fd = fs.openSync(process.argv[2], "a", 0o600);
try {
  fs.writeSync(fd, "x");
  console.log("ok");
} catch (error) {
  console.log(error.code === "ENOSPC" ? "full" : error.message);
}
