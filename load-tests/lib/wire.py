"""HTTP/2 on the wire, as far as a client needs it that allows no dynamic table: frames, and header blocks (RFC 7541)."""

import struct

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, RST_STREAM, SETTINGS, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = 0, 1, 3, 4, 6, 7, 8, 9
END_STREAM, ACK, END_HEADERS, PADDED, PRIORITY = 1, 1, 4, 8, 32
# Settings: no dynamic table, no push, windows of 16 MiB.
NO_TABLE, NO_PUSH, WINDOW = (1, 0), (2, 0), (4, 1 << 24)
CANCEL, REFUSED_STREAM = 8, 7

# Appendix A: the names, in their order; and the only values that an answer takes from there.
NAMES = [""] + (
    ":authority :method :method :path :path :scheme :scheme :status :status :status :status :status :status :status "
    "accept-charset accept-encoding accept-language accept-ranges accept access-control-allow-origin age allow authorization "
    "cache-control content-disposition content-encoding content-language content-length content-location content-range "
    "content-type cookie date etag expect expires from host if-match if-modified-since if-none-match if-range "
    "if-unmodified-since last-modified link location max-forwards proxy-authenticate proxy-authorization range referer refresh "
    "retry-after server set-cookie strict-transport-security transfer-encoding user-agent vary via www-authenticate"
).split()
STATUS = {8: 200, 9: 204, 10: 206, 11: 304, 12: 400, 13: 404, 14: 500}
# Appendix B is a canonical code: the length of each symbol's code, in base 36, tells it whole. The last is the end of a string.
LENGTHS = (
    "dnsssssssoussussssssssusssssssss6aacd68baa8b8666555666666678f6cad67777777777777777777777878djde6f56565666577666567655677777fbeds"
    "kmkkmmmnmnnnnnonoomnonnnnlmnmnnomlkmmnnlnmmolmnnllmlnmnnkmmmnmmnqqkjmnmpqqqrrqopjlqrrqrollqqsrrrkoklmllnmmppooqnqrqqrrrrrsrrrrrq"
    "u"
)


def _codes():
    code, length, codes = 0, 0, {}
    for bits, symbol in sorted((int(bits, 36), symbol) for symbol, bits in enumerate(LENGTHS)):
        code, length = code << bits - length, bits
        codes[bits, code] = symbol
        code += 1
    return codes


CODES = _codes()


def settings(*pairs):
    return frame(SETTINGS, 0, 0, b"".join(struct.pack(">HI", *pair) for pair in pairs))


def frame(kind, flags, stream, payload=b""):
    return struct.pack(">I", len(payload))[1:] + struct.pack(">BBI", kind, flags, stream) + payload


def window_update(stream, by):
    return frame(WINDOW_UPDATE, 0, stream, struct.pack(">I", by))


def split(received):
    """The first frame as kind, flags, stream, payload, and what follows it; None unless it is there whole."""
    if len(received) < 9:
        return None
    end = 9 + int.from_bytes(received[:3], "big")
    if len(received) < end:
        return None
    return *struct.unpack(">BBI", received[3:9]), received[9:end], received[end:]


def text(value):
    """A string as it is, without the code of appendix B."""
    value = value.encode("latin-1")
    return integer(len(value), 7) + value


def integer(value, bits):
    most = (1 << bits) - 1
    if value < most:
        return bytes([value])
    out, value = bytearray([most]), value - most
    while value >= 128:
        out.append(value & 127 | 128)
        value >>= 7
    return bytes([*out, value])


def block(fields):
    """Header fields, each a literal that is not to be indexed."""
    return b"".join(b"\0" + text(name) + text(value) for name, value in fields)


def fields(block):
    """The fields of a header block whose sender was allowed no dynamic table."""
    found, at = [], 0
    while at < len(block):
        byte = block[at]
        if byte & 0xE0 == 0x20:  # the size of the table that we do not allow
            _, at = _integer(block, at, 5)
        elif byte & 0x80:
            index, at = _integer(block, at, 7)
            found.append((NAMES[index], str(STATUS.get(index, ""))))
        else:
            index, at = _integer(block, at, 6 if byte & 0x40 else 4)
            name, at = (NAMES[index], at) if index else _string(block, at)
            value, at = _string(block, at)
            found.append((name, value))
    return found


def _integer(block, at, bits):
    most = (1 << bits) - 1
    value, at, shift = block[at] & most, at + 1, 0
    if value < most:
        return value, at
    while True:
        byte, at = block[at], at + 1
        value, shift = value + ((byte & 127) << shift), shift + 7
        if byte < 128:
            return value, at


def _string(block, at):
    coded = block[at] & 0x80
    length, at = _integer(block, at, 7)
    raw = block[at : at + length]
    return (_decoded(bytes(raw)) if coded else raw.decode("latin-1")), at + length


_known = {}


def _decoded(raw):
    if raw not in _known:
        if len(_known) > 10_000:
            _known.clear()
        out, code, length = bytearray(), 0, 0
        for byte in raw:
            for shift in range(7, -1, -1):
                code, length = code << 1 | byte >> shift & 1, length + 1
                symbol = CODES.get((length, code))
                if symbol is not None:
                    out.append(symbol)
                    code, length = 0, 0
        _known[raw] = out.decode("latin-1")
    return _known[raw]
