#!/usr/bin/env bash
# Compiles the gRPC door's protocol: what the messages are (inference.binpb) and their types for
# mypy (inference_pb2.pyi). Needs grpcio-tools (extra dev).
set -euo pipefail
cd "$(dirname "$0")/../anyserve/runtime/ingress/oip"

PYTHON=${PYTHON:-../../../../.venv/bin/python}
"$PYTHON" -m grpc_tools.protoc --proto_path=. --pyi_out=. \
  --descriptor_set_out=inference.binpb inference.proto
