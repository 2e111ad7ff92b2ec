// GET and POST through the edge with Java's own client: java HttpClientExample.java (Java 11 or newer).
import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpRequest.BodyPublishers;
import java.net.http.HttpResponse.BodyHandlers;

public class HttpClientExample {
    static final String BASE = System.getenv().getOrDefault("BASE_URL", "http://127.0.0.1:8080");
    static final HttpClient CLIENT = HttpClient.newHttpClient();

    public static void main(String[] arguments) throws Exception {
        call(to("/users?page=2").GET());
        call(to("/users").header("Content-Type", "application/json").POST(BodyPublishers.ofString("{\"name\":\"Ada\"}")));
    }

    static HttpRequest.Builder to(String path) {
        return HttpRequest.newBuilder(URI.create(BASE + "/api/hello" + path)).header("Authorization", "Bearer demo-token");
    }

    static void call(HttpRequest.Builder request) throws Exception {
        var response = CLIENT.send(request.build(), BodyHandlers.ofString());
        var code = response.headers().firstValue("requestrocket-proxy-code").orElse("");
        System.out.println(response.statusCode() + " " + code + " " + response.body());
        if (response.statusCode() != 200 || !code.equals("proxy-access-granted")) {
            throw new IllegalStateException("unexpected answer");
        }
    }
}
