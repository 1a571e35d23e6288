import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpResponse.BodyHandlers;

/** Saves a config twice and reads it. Java's client offers an upgrade to HTTP/2 by default. Arguments: URL, token. */
public class UpgradingClient {
    public static void main(String[] args) throws Exception {
        HttpClient client = HttpClient.newHttpClient();
        for (int number = 0; number < 2; number++) {
            String configuration = "{\"number\":" + number + "}";
            String body = "{\"tenant\":\"acme\",\"integration_type\":\"java\",\"configuration\":" + configuration + "}";
            send(client, request(args, "/config").header("Content-Type", "application/json")
                .POST(HttpRequest.BodyPublishers.ofString(body)));
        }
        send(client, request(args, "/config?tenant=acme&integration_type=java").GET());
    }

    private static HttpRequest.Builder request(String[] args, String path) {
        return HttpRequest.newBuilder(URI.create(args[0] + path)).header("Authorization", "Bearer " + args[1]);
    }

    private static void send(HttpClient client, HttpRequest.Builder request) throws Exception {
        var response = client.send(request.build(), BodyHandlers.ofString());
        System.out.println(response.statusCode() + " " + response.version());
    }
}
