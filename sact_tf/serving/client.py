"""A client of TensorFlow Serving, over gRPC or REST.

```python
client = Client("localhost:8500", "sact")
answer = client.predict("serving_default", {"images": [open("a.jpg", "rb").read()]})
print(answer["names"], answer["flops"])
```
"""

import base64
import json
import re
from collections.abc import Mapping, Sequence

import grpc
import numpy as np
import requests
import tensorflow as tf
from tensorflow_serving.apis import (
    get_model_status_pb2,
    model_service_pb2_grpc,
    prediction_service_pb2_grpc,
)
from urllib3.util.retry import Retry

from sact_tf.serving import warmup
from sact_tf.serving.answers import per_image

__all__ = ["ATTEMPTS", "Client", "ServingError", "per_image"]

#: Attempts after which a server is taken to be unavailable; waits double between them.
ATTEMPTS = 5
_FIRST_WAIT = 0.1  # seconds
#: Inputs of one number for each image, and their types.
_SETTINGS = {
    "halting_bias": np.float32,
    "num_proposals": np.int32,
    "proposal_threshold": np.float32,
}


class ServingError(RuntimeError):
    """A request that was not answered.

    Attributes:
      code: grpc.StatusCode, also over REST: INVALID_ARGUMENT, NOT_FOUND, UNAVAILABLE,
        DEADLINE_EXCEEDED or another one.
    """

    def __init__(self, code: grpc.StatusCode, message: str):
        """Keeps the code beside the message."""
        super().__init__(message)
        self.code = code


class Client:
    """Sends requests to one model of a server.

    A server that is unavailable (or overloaded) is asked again, ATTEMPTS times in all,
    until the deadline. Close it, or use it in a `with` statement.
    """

    def __init__(
        self,
        server: str,
        model: str,
        *,
        version: int | None = None,
        protocol: str = "grpc",
        timeout: float = 10.0,
    ):
        """Connects when the first request is sent.

        Args:
          server: "host:port"; gRPC and REST have ports of their own.
          model: name of the model on the server.
          version: of the model; by default the latest that is served.
          protocol: "grpc" or "rest".
          timeout: seconds until a request is given up, with all its attempts (gRPC), or
            until a single attempt is (REST).

        Raises:
          ValueError: an unknown protocol, no port, or a timeout that is not positive.
        """
        if protocol not in ("grpc", "rest"):
            raise ValueError(
                f"protocol must be 'grpc' or 'rest'. Received: {protocol!r}"
            )
        host, _, port = server.rpartition(":")
        if not host or "/" in server or not port.isdecimal():
            raise ValueError(
                f"The server must be host:port, such as localhost:8500. "
                f"Received: {server!r}"
            )
        if not timeout > 0:
            raise ValueError(f"timeout must be above zero. Received: {timeout}")
        self._transport = (_Grpc if protocol == "grpc" else _Rest)(
            server, model, version, timeout
        )

    def predict(
        self, signature: str, inputs: Mapping[str, Sequence | np.ndarray]
    ) -> dict[str, np.ndarray]:
        """Asks for a prediction.

        Args:
          signature: name of the signature.
          inputs: arrays by name; files as a list of bytes objects.

        Returns:
          Arrays by name; strings as str objects.

        Raises:
          ServingError: there was no answer; the message says why.
        """
        arrays = {key: _array(value) for key, value in inputs.items()}
        # Given for every image they also suit servers that batch, and REST, which knows
        # no optional inputs.
        arrays.setdefault("halting_bias", np.zeros([]))
        for key, dtype in _SETTINGS.items():
            if key in arrays:
                values = arrays[key].astype(dtype)
                if values.size == 1:
                    values = np.full(len(arrays["images"]), values.reshape([]))
                arrays[key] = values
        return self._transport.predict(signature, arrays)

    def versions(self) -> dict[int, str]:
        """State of each version that the server knows: {3: "AVAILABLE"}."""
        return self._transport.versions()

    def close(self) -> None:
        """Closes the connection."""
        self._transport.close()

    def __enter__(self):
        """The client itself."""
        return self

    def __exit__(self, *_):
        """Closes the connection."""
        self.close()


class _Grpc:
    def __init__(self, server, model, version, timeout):
        self._server, self._model = server, model
        self._version, self._timeout = version, timeout
        retry = {
            "maxAttempts": ATTEMPTS,
            "initialBackoff": f"{_FIRST_WAIT}s",
            "maxBackoff": "2s",
            "backoffMultiplier": 2,
            "retryableStatusCodes": ["UNAVAILABLE"],
        }
        config = {"methodConfig": [{"name": [{}], "retryPolicy": retry}]}
        options = {
            "grpc.service_config": json.dumps(config),
            # Maps of a whole batch are larger than the 4 MB that are usual.
            "grpc.max_receive_message_length": -1,
            "grpc.max_send_message_length": -1,
        }
        self._channel = grpc.insecure_channel(server, options=list(options.items()))
        self._predictions = prediction_service_pb2_grpc.PredictionServiceStub(
            self._channel
        )
        self._models = model_service_pb2_grpc.ModelServiceStub(self._channel)

    def predict(self, signature, arrays):
        request = warmup.predict_request(self._model, signature, arrays, self._version)
        response = self._call(self._predictions.Predict, request)
        return {
            key: _text(tf.make_ndarray(value))
            for key, value in sorted(response.outputs.items())
        }

    def versions(self):
        request = get_model_status_pb2.GetModelStatusRequest()
        request.model_spec.name = self._model
        response = self._call(self._models.GetModelStatus, request)
        states = get_model_status_pb2.ModelVersionStatus.State
        return {
            status.version: states.Name(status.state)
            for status in response.model_version_status
        }

    def _call(self, method, request):
        try:
            return method(request, timeout=self._timeout)
        except grpc.RpcError as error:
            code, details = error.code(), error.details()
            message = _explained(self, code, details)
            raise ServingError(code, message) from error

    def close(self):
        self._channel.close()


class _Rest:
    _CODES = {  # noqa: RUF012 (never changed)
        400: grpc.StatusCode.INVALID_ARGUMENT,
        404: grpc.StatusCode.NOT_FOUND,
        503: grpc.StatusCode.UNAVAILABLE,
        504: grpc.StatusCode.DEADLINE_EXCEEDED,
    }

    def __init__(self, server, model, version, timeout):
        self._server, self._model = server, model
        self._version, self._timeout = version, timeout
        self._session = requests.Session()
        retry = Retry(
            total=ATTEMPTS - 1,
            read=False,
            backoff_factor=_FIRST_WAIT,
            status_forcelist=[503],
            allowed_methods=None,  # Predictions change nothing: POST may be repeated.
            raise_on_status=False,
        )
        adapter = requests.adapters.HTTPAdapter(max_retries=retry)
        self._session.mount("http://", adapter)

    def predict(self, signature, arrays):
        body = {
            "signature_name": signature,
            "inputs": {key: _json(value) for key, value in arrays.items()},
        }
        version = "" if self._version is None else f"/versions/{self._version}"
        outputs = self._call("POST", f"{version}:predict", json=body)["outputs"]
        return {key: np.asarray(value) for key, value in sorted(outputs.items())}

    def versions(self):
        statuses = self._call("GET", "")["model_version_status"]
        return {int(status["version"]): status["state"] for status in statuses}

    def _call(self, method, path, **options):
        url = f"http://{self._server}/v1/models/{self._model}{path}"
        try:
            response = self._session.request(
                method, url, timeout=self._timeout, **options
            )
            content = response.json()
        except requests.Timeout as error:
            code = grpc.StatusCode.DEADLINE_EXCEEDED
            raise ServingError(code, _explained(self, code, "")) from error
        except requests.ConnectionError as error:
            code = grpc.StatusCode.UNAVAILABLE
            raise ServingError(code, _explained(self, code, str(error))) from error
        except requests.RequestException as error:
            code = grpc.StatusCode.INTERNAL
            raise ServingError(
                code, f"{self._server} answers, but not as TensorFlow Serving does."
            ) from error
        if response.status_code != 200:
            code = self._CODES.get(response.status_code, grpc.StatusCode.UNKNOWN)
            details = content.get("error", "") if isinstance(content, dict) else ""
            raise ServingError(code, _explained(self, code, details))
        return content

    def close(self):
        self._session.close()


def _explained(transport, code, details):
    """One sentence on what went wrong, and what to do."""
    model, server = transport._model, transport._server
    # What follows is where in the graph it happened.
    details = details.partition("\n")[0]
    asserted = re.search(r"assertion failed: \[(.*)\]", details)
    details = asserted[1] if asserted else re.sub(r"\{\{.*?\}\}", "", details).strip()
    if code == grpc.StatusCode.NOT_FOUND:
        version = transport._version
        wanted = model if version is None else f"{model}, version {version}"
        return f"{server} serves no model {wanted}. ({details})"
    if code == grpc.StatusCode.UNAVAILABLE:
        return f"{server} is not there, or takes no requests now. ({details})"
    if code == grpc.StatusCode.DEADLINE_EXCEEDED:
        return (
            f"{server} gave no answer in {transport._timeout:g} seconds. Allow more "
            "time, or send fewer images at once."
        )
    return f"{server} refused the request ({code.name}): {details}"


def _array(value):
    if isinstance(value, list | tuple) and value and isinstance(value[0], bytes):
        return np.array(value, object)
    return np.asarray(value)


def _text(array):
    if array.dtype != object:
        return array
    flat = [text.decode() for text in array.ravel()]
    return np.array(flat, dtype=str).reshape(array.shape)


def _json(array):
    if array.dtype != object:
        return array.tolist()
    return [{"b64": base64.b64encode(content).decode()} for content in array]
