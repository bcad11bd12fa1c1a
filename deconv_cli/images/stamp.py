"""Writing into a file what was done to it: XMP, or text in a PNG."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from html import escape

from deconv_cli.images import png
from deconv_cli.images.frame import Frame

NAMESPACE = "urn:deconv:provenance:1"
KEYWORD = "deconv"
_END = b"</rdf:RDF>"
_PACKET = (
    '<?xpacket begin="\ufeff" id="W5M0MpCehiHzreSzNTczkc9d"?><x:xmpmeta xmlns:x="adobe:ns:meta/">'
    '<rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#"></rdf:RDF></x:xmpmeta><?xpacket end="w"?>'
).encode()


def stamp(frame: Frame, facts: Mapping[str, str], *, as_text: bool) -> Frame:
    """Add facts to a picture's metadata.

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
    packet = frame.xmp if frame.xmp and _END in frame.xmp else _PACKET
    attributes = " ".join(f'deconv:{name}="{escape(value)}"' for name, value in facts.items())
    description = f'<rdf:Description rdf:about="" xmlns:deconv="{NAMESPACE}" {attributes}/>'
    head, end, tail = packet.rpartition(_END)
    return replace(frame, xmp=head + description.encode() + end + tail)
