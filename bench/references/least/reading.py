"""The least ReadTags: takes in what a header may be, and answers what it always answers. It prints its port.

Nothing is read, and nobody asked who he is: what is left is what gRPC, and Envoy, take for such a call.
"""

import asyncio
import gc
from typing import Any, Final

import grpc
import uvloop
from grpc.aio import EOF

from deploy.local.ports import HOST
from ris.tags.v1 import dicom_tags_pb2, tag_service_pb2

PATIENT: Final = "BENCH-READ"
_HEADER_BYTES: Final = 64 * 1024
_SERVICE: Final = "ris.tags.v1.TagService"
_UID: Final = "2.25.111111111111111111111111111111111111111"
# As long as that of a CT slice.
_ANSWER: Final = tag_service_pb2.ReadTagsResponse(
    tags=dicom_tags_pb2.DicomTags(
        dicom_patient_id=PATIENT,
        patient_name="CompressedSamples^CT1",
        patient_sex="O",
        patient_age="000Y",
        study_instance_uid=_UID,
        study_date="20040119",
        study_time="072730",
        study_description="e+1",
        series_instance_uid=_UID,
        series_number="1",
        modality="CT",
        sop_instance_uid=_UID,
        instance_number="1",
        institution_name="JFK IMAGING CENTER",
    )
)


async def _read_tags(_requests: Any, context: Any) -> Any:
    size = 0
    while size < _HEADER_BYTES and (message := await context.read()) is not EOF:
        size += len(message)
    # Many HTTP clients look for an answer only when they have sent everything.
    if any(name == "x-envoy-original-path" for name, _ in context.invocation_metadata()):
        while await context.read() is not EOF:
            pass
    return _ANSWER


async def _serve() -> None:
    methods: dict[str, Any] = {
        # What comes is not even made a message of.
        "ReadTags": grpc.stream_unary_rpc_method_handler(
            _read_tags, response_serializer=tag_service_pb2.ReadTagsResponse.SerializeToString
        )
    }
    server = grpc.aio.server()
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(_SERVICE, methods),))
    port = server.add_insecure_port(f"{HOST}:0")
    await server.start()
    gc.freeze()
    print(port, flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    uvloop.run(_serve())
