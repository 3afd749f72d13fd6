"""The page over HTTP: three files, and a few answers in JSON."""

import http.server
import importlib.resources
import ipaddress
import json
import socket
import socketserver
import sys
import traceback
import urllib.parse

import tensorflow as tf

from sact_tf import errors
from sact_tf.live import page, photographs

_FILES = {
    "/": ("page.html", "text/html"),
    "/page.css": ("page.css", "text/css"),
    "/page.js": ("page.js", "text/javascript"),
}
#: Nothing from elsewhere: pictures may also be what the page has made itself.
_POLICY = "default-src 'self'; img-src 'self' blob: data:; frame-ancestors 'none'"
_MAX_JSON = 10_000
#: What servables call the only image of a request.
_IN_REQUESTS = ("Image 0 of the request, counted from zero,", "All images")


class Server(http.server.ThreadingHTTPServer):
    """Serves a page until `shutdown`."""

    daemon_threads = True

    def __init__(self, shown: page.Page, host: str = "127.0.0.1", port: int = 0):
        """Takes the port.

        Args:
          shown: the page.
          host: address to listen on; loopback by default.
          port: 0 for any that is free.

        Raises:
          ValueError: the host or port cannot be had.
        """
        self.page = shown
        try:
            self.address_family = socket.getaddrinfo(host, port)[0][0]
            super().__init__((host, port), _Handler)
        except (OSError, OverflowError) as error:
            raise ValueError(
                f"The page cannot be served at {host}, port {port}: "
                f"{getattr(error, 'strerror', None) or error}. Another --port may be "
                "free; 0 takes any that is"
            ) from error

    def server_bind(self):
        """Without asking for this machine's name, which can take seconds."""
        socketserver.TCPServer.server_bind(self)
        self.server_name, self.server_port = self.server_address[:2]

    @property
    def url(self) -> str:
        """Where the page is, for a browser on this machine."""
        host, port = self.server_address[:2]
        host = "localhost" if _is_any(host) else host
        return f"http://{f'[{host}]' if ':' in host else host}:{port}/"

    @property
    def is_open(self) -> bool:
        """Whether other machines can reach it."""
        return not ipaddress.ip_address(self.server_address[0]).is_loopback

    def handle_error(self, request, client_address):
        """Is silent on browsers that went away."""
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)


def _is_any(host):
    return ipaddress.ip_address(host).is_unspecified


def _is_loopback(place):
    name = urllib.parse.urlsplit(f"//{place}").hostname or ""
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return name == "localhost"


class _Refused(Exception):
    """A request that is not for this server; a status and a sentence."""

    def __init__(self, status, sentence):
        super().__init__(sentence)
        self.status = status


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    # Headers and content are two packets, of which the second would wait.
    disable_nagle_algorithm = True

    def do_GET(self):
        """A file, a photograph, or what the page is about."""
        self._answer(self._get)

    def do_POST(self):
        """A photograph, or a question on one."""
        self._answer(self._post)

    def _answer(self, function):
        try:
            status, (content, mime_type) = 200, function(self._path())
        except _Refused as error:
            status, (content, mime_type) = error.status, _json({"error": str(error)})
        except (ValueError, OSError, RuntimeError, tf.errors.OpError) as error:
            sentence = errors.cause(error)
            for words in _IN_REQUESTS:
                sentence = sentence.replace(words, "The image")
            status, (content, mime_type) = 400, _json({"error": sentence})
        except Exception:
            traceback.print_exc()
            sentence = "The program failed; its terminal says where."
            status, (content, mime_type) = 500, _json({"error": sentence})
        self.send_response(status)
        self.send_header("Content-Type", mime_type)
        self.send_header("Content-Length", str(len(content)))
        self.send_header("Cache-Control", "no-store")
        self.send_header("Content-Security-Policy", _POLICY)
        self.send_header("X-Content-Type-Options", "nosniff")
        if status != 200:
            # What is left of the request must not be taken for the next one.
            self.close_connection = True
            self.send_header("Connection", "close")
        self.end_headers()
        self.wfile.write(content)

    def _path(self):
        """The path, decoded; pages of other sites may not ask."""
        self.connection.settimeout(60)
        host, origin = self.headers.get("Host", ""), self.headers.get("Origin")
        if origin and urllib.parse.urlsplit(origin).netloc != host:
            raise _Refused(403, "Only the page itself may ask")
        # A site may say that its name means this machine, but not change the name.
        if not self.server.is_open and not _is_loopback(host):
            raise _Refused(403, f"The page is not at {host}")
        return urllib.parse.unquote(urllib.parse.urlsplit(self.path).path)

    def _get(self, path):
        shown = self.server.page
        if path in _FILES:
            name, mime_type = _FILES[path]
            files = importlib.resources.files("sact_tf.live") / "static"
            return (files / name).read_bytes(), f"{mime_type}; charset=utf-8"
        kind, _, name = path[1:].partition("/")
        if path == "/about":
            return _json(shown.about())
        if kind == "photographs" and name:
            photograph = shown.photograph(name)
            return photograph.shown, photograph.mime_type
        if kind == "thumbnails" and name in shown.thumbnails:
            return shown.thumbnails[name]
        if kind == "examples" and name in shown.examples:
            return shown.examples[name], "application/octet-stream"
        raise _Refused(404, f"There is no {path} here")

    def _post(self, path):
        shown = self.server.page
        if path == "/photographs":
            name = urllib.parse.unquote(self.headers.get("X-Name", "")) or "The file"
            return _json(shown.add(self._body(photographs.MAX_BYTES, name), name))
        questions = {"/answer": shown.answer, "/times": shown.times}
        if path not in questions:
            raise _Refused(404, f"There is no {path} here")
        try:
            asked = json.loads(self._body(_MAX_JSON, "The question"))
            key, bias = str(asked["photograph"]), asked["halting_bias"]
        except (ValueError, TypeError, KeyError) as error:
            raise _Refused(
                400, f"A question has a photograph and a halting_bias. ({error!r})"
            ) from error
        return _json(questions[path](key, bias))

    def _body(self, most, what):
        length = self.headers.get("Content-Length", "")
        if not length.isdecimal():
            raise _Refused(411, "The request does not say how long it is")
        if int(length) > most:
            raise _Refused(
                413, f"{what} has {int(length)} bytes; at most {most} are taken"
            )
        return self.rfile.read(int(length))

    def log_message(self, *_):
        """Is silent: the terminal is for what went wrong."""


def _json(content):
    return json.dumps(content).encode(), "application/json"
