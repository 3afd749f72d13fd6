"""Runs a SavedModel with nothing but TensorFlow, or with its C library alone.

stock_reader.py SAVED_MODEL CASES.npz ANSWERS.npz
stock_reader.py --c_library LIBRARY SAVED_MODEL IMAGE.npy
"""

import ctypes
import json
import os
import sys

import numpy as np


def with_tensorflow(folder, cases, answers):
    import tensorflow as tf

    signatures = tf.saved_model.load(folder).signatures
    outputs = {}
    with np.load(cases, allow_pickle=True) as inputs:
        for key, images in inputs.items():
            signature = signatures[key.partition("-")[0]]
            _, specs = signature.structured_input_signature
            # Here none is optional: -1 is what the export says.
            inputs = {"images": tf.constant(images), "halting_bias": tf.constant([0.0])}
            for name in specs.keys() - inputs.keys():
                inputs[name] = tf.constant([-1], specs[name].dtype)
            answer = signature(**inputs)
            outputs |= {f"{key}/{name}": v.numpy() for name, v in answer.items()}
    np.savez(answers, **outputs)
    assert not [name for name in sys.modules if name.startswith("sact_tf")]


class Output(ctypes.Structure):
    _fields_ = (("operation", ctypes.c_void_p), ("index", ctypes.c_int))


def with_c_library(path, folder, image):
    """Ponder cost and FLOPs of an image, from the signature `tensors`."""
    framework = os.path.join(os.path.dirname(path), "libtensorflow_framework.so.2")
    ctypes.CDLL(framework, ctypes.RTLD_GLOBAL)
    c = ctypes.CDLL(path)
    pointer = ctypes.c_void_p
    makers = ("NewStatus", "NewGraph", "NewSessionOptions", "AllocateTensor")
    getters = ("LoadSessionFromSavedModel", "GraphOperationByName", "TensorData")
    for name in (*makers, *getters):
        getattr(c, f"TF_{name}").restype = pointer
    c.TF_Message.restype = ctypes.c_char_p
    c.TF_TensorByteSize.restype = ctypes.c_size_t
    status, graph = pointer(c.TF_NewStatus()), pointer(c.TF_NewGraph())

    def check():
        if c.TF_GetCode(status):
            sys.exit(c.TF_Message(status).decode())

    tags = (ctypes.c_char_p * 1)(b"serve")
    session = pointer(
        c.TF_LoadSessionFromSavedModel(
            pointer(c.TF_NewSessionOptions()),
            None,
            folder.encode(),
            tags,
            1,
            graph,
            None,
            status,
        )
    )
    check()

    def output(tensor_name):
        name, _, index = tensor_name.partition(":")
        operation = c.TF_GraphOperationByName(graph, name.encode())
        return Output(operation, int(index))

    pixels = np.load(image)
    shape = (ctypes.c_int64 * pixels.ndim)(*pixels.shape)
    uint8 = 4
    tensor = pointer(c.TF_AllocateTensor(uint8, shape, pixels.ndim, pixels.nbytes))
    ctypes.memmove(c.TF_TensorData(tensor), pixels.tobytes(), pixels.nbytes)
    names = json.loads(os.environ["OUTPUTS"])
    fetched = (pointer * 2)()
    c.TF_SessionRun(
        session,
        None,
        (Output * 1)(output("tensors_images:0")),
        (pointer * 1)(tensor),
        1,
        (Output * 2)(*map(output, names)),
        fetched,
        2,
        None,
        0,
        None,
        status,
    )
    check()
    values = []
    for tensor, dtype in zip(fetched, (np.float32, np.int64), strict=True):
        tensor = pointer(tensor)
        data = ctypes.string_at(c.TF_TensorData(tensor), c.TF_TensorByteSize(tensor))
        values.append(np.frombuffer(data, dtype)[0].item())
    print(json.dumps(values))
    assert "tensorflow" not in sys.modules


if __name__ == "__main__":
    if sys.argv[1] == "--c_library":
        with_c_library(*sys.argv[2:])
    else:
        with_tensorflow(*sys.argv[1:])
