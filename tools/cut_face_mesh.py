"""Cut MediaPipe's attention mesh at its custom operations, which LiteRT's stock runtime lacks.

``face_landmark_with_attention.tflite`` (Apache-2.0, in the mediapipe 0.10.21 wheel) is a trunk (picture → mesh,
presence, features), three feature crops by custom operations, and three heads (lips, eyes). This writes the trunk and
the heads as two files that any LiteRT runs; ``skyreels_audio.faces.attention`` does the crops in NumPy. The weights are
unchanged.

    python tools/cut_face_mesh.py face_landmark_with_attention.tflite src/skyreels_audio/faces/assets
"""

import sys
from pathlib import Path
from typing import Any

import flatbuffers
from ai_edge_litert import schema_py_generated as schema

PARTS = {
    "face_mesh_trunk": (["input_1"], ["output_mesh", "p_re_lu_3", "conv_faceflag"]),
    "face_mesh_heads": (
        ["transform_tensor_bilinear_v2", "transform_tensor_bilinear_v2_1", "transform_tensor_bilinear_v2_2"],
        ["conv_lips", "conv_left_eye", "conv_right_eye", "conv_left_iris", "conv_right_iris"],
    ),
}


def cut(model_bytes: bytes, inputs: list[str], outputs: list[str]) -> bytes:
    """The part of a one-graph model that computes ``outputs`` from ``inputs`` (tensor names)."""
    model: Any = schema.ModelT.InitFromPackedBuf(model_bytes, 0)
    graph = model.subgraphs[0]
    index = {tensor.name.decode(): i for i, tensor in enumerate(graph.tensors)}
    graph.inputs, graph.outputs = [index[name] for name in inputs], [index[name] for name in outputs]

    needed, operators = set(graph.outputs), []
    for operator in reversed(graph.operators):
        if needed.intersection(operator.outputs) - set(graph.inputs):
            operators.append(operator)
            needed.update(operator.inputs)
    graph.operators = operators[::-1]

    kept = sorted(needed.union(graph.inputs))
    place = {old: new for new, old in enumerate(kept)}
    graph.tensors = [graph.tensors[old] for old in kept]
    graph.inputs, graph.outputs = [place[i] for i in graph.inputs], [place[i] for i in graph.outputs]
    for operator in graph.operators:
        operator.inputs = [place[i] for i in operator.inputs]
        operator.outputs = [place[i] for i in operator.outputs]
    buffers = [model.buffers[0]]  # by convention empty: tensors without data share it
    for tensor in graph.tensors:
        if tensor.buffer:
            buffers.append(model.buffers[tensor.buffer])
            tensor.buffer = len(buffers) - 1
    model.buffers, model.metadata, model.metadataBuffer, model.signatureDefs = buffers, None, None, None
    codes = sorted({operator.opcodeIndex for operator in graph.operators})
    model.operatorCodes = [model.operatorCodes[code] for code in codes]
    for operator in graph.operators:
        operator.opcodeIndex = codes.index(operator.opcodeIndex)

    builder = flatbuffers.Builder()
    builder.Finish(model.Pack(builder), b"TFL3")
    return bytes(builder.Output())


def main() -> None:
    source, folder = Path(sys.argv[1]), Path(sys.argv[2])
    for name, (inputs, outputs) in PARTS.items():
        (folder / f"{name}.tflite").write_bytes(cut(source.read_bytes(), inputs, outputs))


if __name__ == "__main__":
    main()
