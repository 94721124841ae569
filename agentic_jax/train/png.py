"""Images as text: small PNG files inside of an address."""

import base64
import struct
import zlib

import numpy as np

_LARGEST = (
  96  # Pixels a side; of a larger image every second, third, ... pixel.
)


def data_uri(image: np.ndarray) -> str:
  """An image uint8 [H, W, 3] as a data: address of a PNG file."""
  step = -(-max(image.shape[:2]) // _LARGEST)
  small = image[::step, ::step]
  height, width, _ = small.shape
  # Each row begins with the number of its filter: none.
  rows = b''.join(b'\0' + row.tobytes() for row in small)
  header = struct.pack('>IIBBBBB', width, height, 8, 2, 0, 0, 0)
  found = (
    b'\x89PNG\r\n\x1a\n'
    + _chunk(b'IHDR', header)
    + _chunk(b'IDAT', zlib.compress(rows, 9))
    + _chunk(b'IEND', b'')
  )
  return 'data:image/png;base64,' + base64.b64encode(found).decode()


def _chunk(kind: bytes, data: bytes) -> bytes:
  check = zlib.crc32(kind + data)
  return struct.pack('>I', len(data)) + kind + data + struct.pack('>I', check)
