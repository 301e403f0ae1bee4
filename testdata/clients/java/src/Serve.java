import com.sun.net.httpserver.HttpServer;
import java.io.OutputStream;
import java.net.InetSocketAddress;
import java.net.URL;
import java.net.URLClassLoader;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.Map;

/** {@code POST /run/NAME} runs the case of that name: 200 and ok, or 500 and why it failed. */
public class Serve {
    interface Case {
        void run() throws Exception;
    }

    static final Map<String, Case> CASES = Map.of(
        "jdbc8", () -> Jdbc.run("com.mysql.cj.jdbc.Driver", Serve.class.getClassLoader(), "j8"),
        "jdbc9", () -> Jdbc.run("com.mysql.cj.jdbc.Driver", nine(), "j9"),
        "hikari", Jdbc::hikari,
        "hibernate", Orm::run,
        "jedis", RedisClients::jedis,
        "lettuce", RedisClients::lettuce,
        "kafka_clients", KafkaClients::run,
        "kafka_transaction", KafkaClients::transaction);

    /** Connector/J 9 beside 8: its classes come from its own loader. */
    static ClassLoader nine() throws Exception {
        try (var jars = Files.list(Path.of("target/lib9"))) {
            return new URLClassLoader(new URL[] {jars.findFirst().orElseThrow().toUri().toURL()}, ClassLoader.getPlatformClassLoader());
        }
    }

    static void check(boolean fine, Object what) {
        if (!fine) throw new AssertionError(String.valueOf(what));
    }

    static void equal(Object got, Object want) {
        check(want.equals(got), "got " + got + ", want " + want);
    }

    public static void main(String[] args) throws Exception {
        int port = Integer.parseInt(System.getenv().getOrDefault("PORT", "8080"));
        HttpServer server = HttpServer.create(new InetSocketAddress("127.0.0.1", port), 0);
        server.setExecutor(java.util.concurrent.Executors.newCachedThreadPool());
        server.createContext("/", exchange -> {
            String path = exchange.getRequestURI().getPath();
            String text = "ok";
            int status = 200;
            try {
                if (path.startsWith("/run/")) CASES.get(path.substring(5)).run();
            } catch (Throwable failed) {
                StringBuilder words = new StringBuilder();
                for (Throwable t = failed; t != null; t = t.getCause()) {
                    words.append(t).append(" < ");
                    for (StackTraceElement e : t.getStackTrace()) {
                        if (e.getFileName() != null && e.getFileName().matches("(Jdbc|Orm|RedisClients|KafkaClients).java")) {
                            words.append(e.getFileName()).append(':').append(e.getLineNumber()).append(' ');
                            break;
                        }
                    }
                }
                text = words.toString();
                status = 500;
            }
            byte[] body = text.getBytes();
            exchange.sendResponseHeaders(status, body.length);
            try (OutputStream out = exchange.getResponseBody()) {
                out.write(body);
            }
        });
        server.start();
    }
}
