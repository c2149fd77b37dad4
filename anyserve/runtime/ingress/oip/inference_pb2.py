"""The messages of `inference.proto`, for every protobuf from 4.25 on.

Not what protoc writes: its modules want a protobuf at least as new as protoc itself, and put the
names of `inference` into the one pool of the process, where a client library of the same protocol
may have them already. So the compiled description lies beside this file (`inference.binpb`), and
its messages live in a pool of their own. `setup/compile-proto.sh` makes it, and the `.pyi`.
"""

from __future__ import annotations

from importlib.resources import files

from google.protobuf.descriptor_pb2 import FileDescriptorSet
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message_factory import GetMessageClass

_pool = DescriptorPool()
_described = FileDescriptorSet.FromString(
    (files("anyserve.runtime.ingress.oip") / "inference.binpb").read_bytes()
)
for _file in _described.file:
    _pool.AddSerializedFile(_file.SerializeToString())

DESCRIPTOR = _pool.FindFileByName("inference.proto")
"""Of the file; `DESCRIPTOR.pool` is the pool that knows it and nothing else."""

for _name, _message in DESCRIPTOR.message_types_by_name.items():
    globals()[_name] = GetMessageClass(_message)
