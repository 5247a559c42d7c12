"""An OTLP/HTTP receiver of logs, which decodes with the published schema and nothing of the agent's.

It appends each record to a file, in JSON; refuses records whose body says so, by a partial success; and loses every fifth
answer. Unknown fields are an error: what is sent has to be what the schema knows."""
import gzip
import http.server
import json
import signal
import sys

from google.protobuf import json_format
from opentelemetry.proto.collector.logs.v1 import logs_service_pb2 as logs

out = open(sys.argv[1], "a", encoding="utf-8")
requests = 0


def attributes(pairs):
    names = [pair.key for pair in pairs]
    assert len(names) == len(set(names)), names
    return {pair.key: pair.value for pair in pairs}


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *args):
        pass

    def do_POST(self):
        global requests
        requests += 1
        body = self.rfile.read(int(self.headers["content-length"]))
        assert self.path == "/v1/logs", self.path
        assert self.headers["content-encoding"] == "gzip"
        body = gzip.decompress(body)
        binary = self.headers["content-type"] == "application/x-protobuf"
        request = logs.ExportLogsServiceRequest()
        if binary:
            request.ParseFromString(body)
            # Unknown fields would be kept in the message, and missing from this.
            again = json_format.ParseDict(json_format.MessageToDict(request), logs.ExportLogsServiceRequest())
            assert again == request
        else:
            assert self.headers["content-type"] == "application/json"
            json_format.Parse(body, request)
        response = self.take(request)
        if requests % 5 == 0:
            self.close_connection = True
            return
        if binary:
            answer = response.SerializeToString()
        else:
            answer = json_format.MessageToJson(response).encode()
        self.send_response(200)
        self.send_header("Content-Type", self.headers["content-type"])
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def take(self, request):
        response = logs.ExportLogsServiceResponse()
        for resource in request.resource_logs:
            about = attributes(resource.resource.attributes)
            for scope in resource.scope_logs:
                assert scope.scope.name == "log-agent"
                for record in scope.log_records:
                    assert record.body.WhichOneof("value") == "string_value"
                    if "REFUSED" in record.body.string_value:
                        response.partial_success.rejected_log_records += 1
                        response.partial_success.error_message = "I do not like it"
                        continue
                    of_record = attributes(record.attributes)
                    json.dump({
                        "uid": of_record["log.record.uid"].string_value,
                        "path": of_record["log.file.path"].string_value,
                        "service": about["service.name"].string_value,
                        "agent": about["log_agent.name"].string_value,
                        "label": about["deployment.environment.name"].string_value,
                        "time": record.time_unix_nano,
                        "observed": record.observed_time_unix_nano,
                        "body": record.body.string_value,
                    }, out)
                    out.write("\n")
        out.flush()
        return response


signal.signal(signal.SIGTERM, lambda *args: sys.exit(0))
server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
server.daemon_threads = True
print(server.server_address[1], flush=True)
server.serve_forever()
