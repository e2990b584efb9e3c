"""Reading the 20 tags of a header: tag_service's reader against pydicom's, in this process."""

import io

import pydicom

from bench.timing import in_turns
from tag_service.domain.limits import Limits
from tag_service.domain.reading import HeaderReader
from tests.files import sample_bytes

FILES = ("CT_small.dcm", "MR_small.dcm", "MR_small_bigendian.dcm", "JPEG2000.dcm", "reportsi.dcm")
REPEAT = 200


async def run() -> None:
    """Prints milliseconds a file and their ratio."""
    print(f"{'file':<26}{'ours ms':>9}{'pydicom ms':>12}{'ratio':>8}")
    for name in FILES:
        content = sample_bytes(name)

        async def ours(content: bytes = content) -> None:
            for _ in range(REPEAT):
                reader = HeaderReader(Limits())
                if not reader.feed(content):
                    reader.close()
                reader.header()

        async def pydicoms(content: bytes = content) -> None:
            for _ in range(REPEAT):
                data_set = pydicom.dcmread(io.BytesIO(content), stop_before_pixels=True)
                data_set.get("PatientID")

        taken = await in_turns({"ours": ours, "pydicom": pydicoms}, rounds=5)
        mine, theirs = taken["ours"] / REPEAT * 1000, taken["pydicom"] / REPEAT * 1000
        print(f"{name:<26}{mine:>9.3f}{theirs:>12.3f}{mine / theirs:>8.2f}")
