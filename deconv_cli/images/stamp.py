"""Writing into a file what was done to it: XMP, or text in a PNG."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from html import escape

from deconv_cli.images import png
from deconv_cli.images.frame import Frame

NAMESPACE = "urn:deconv:provenance:1"
KEYWORD = "deconv"
_START = f'<rdf:Description rdf:about="" xmlns:deconv="{NAMESPACE}"'
_EARLIER = re.compile(re.escape(_START.encode()) + rb"[^<>]*/>")
_END = b"</rdf:RDF>"
_PACKET = (
    '<?xpacket begin="\ufeff" id="W5M0MpCehiHzreSzNTczkc9d"?><x:xmpmeta xmlns:x="adobe:ns:meta/">'
    '<rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#"></rdf:RDF></x:xmpmeta><?xpacket end="w"?>'
).encode()


def stamp(frame: Frame, facts: Mapping[str, str], *, as_text: bool) -> Frame:
    """Add facts to a picture's metadata, in place of those of an earlier stamp.

    A picture whose XMP packet is in a form that nothing can be added to is returned as it is.

    Parameters
    ----------
    frame
        The picture.
    facts
        Names (letters only) and values.
    as_text
        Add a PNG text chunk, a fact a line; else properties to the XMP packet, which is made if there is none.
    """
    if as_text:
        text = "\n".join(f"{name}: {value}" for name, value in facts.items())
        others = tuple(chunk for chunk in frame.chunks if KEYWORD.encode() + b"\0" not in chunk[1][: len(KEYWORD) + 1])
        return replace(frame, chunks=(*others, png.text_chunk(KEYWORD, text)))
    packet = _EARLIER.sub(b"", frame.xmp or _PACKET)
    # A property that is there twice makes the whole packet invalid; others may have rewritten the earlier stamp.
    if _END not in packet or NAMESPACE.encode() in packet:
        return frame
    attributes = " ".join(f'deconv:{name}="{escape(value)}"' for name, value in facts.items())
    head, end, tail = packet.rpartition(_END)
    return replace(frame, xmp=head + f"{_START} {attributes}/>".encode() + end + tail)
