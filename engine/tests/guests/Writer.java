// Appends a byte to the file that it is given and says "ok" or what the error is.

import java.io.FileOutputStream;
import java.io.IOException;

public class Writer {
    public static void main(String[] args) throws Exception {
        try (FileOutputStream file = new FileOutputStream(args[0], true)) {
            file.write('x');
            System.out.println("ok");
        } catch (IOException error) {
            System.out.println(error.getMessage().contains("No space") ? "full" : error.getMessage());
        }
    }
}
