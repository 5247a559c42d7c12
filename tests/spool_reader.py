#!/usr/bin/env python3
"""Reads a log-agent spool and prints its events as lines of JSON.

Written from spool-format.md alone, with nothing but the standard library: the witness that the page is enough to read a
spool in another language. Prints byte for byte what `log-agent spool export` prints; with --dead-letters what
`log-agent spool dead-letters list --json` has, an object a line.

    spool_reader.py SPOOL_DIR
    spool_reader.py --dead-letters SPOOL_DIR

The ledger is not read, so the torn end is judged without its cursor (section 9).
"""

import base64
import collections
import datetime
import json
import os
import re
import struct
import sys
import zlib

SEGMENT_HEADER = struct.Struct("<8sIIQQ16s16sqII")
FRAME_HEADER = struct.Struct("<4sBBHHHIIIQQqQQQQQQQHHIQII")
FRAME_MAGIC = b"LAFR"
PAYLOAD_MAX = 128 << 20
EXTRA_MAX = 66_035
EVENTS, SNAPSHOT, DEAD_LETTER = 1, 2, 3
FLAG_FORGET = 1 << 2
REASONS = {1, 2, 3, 4, 5, 6, 7, 64, 65, 66}
EPOCH = datetime.datetime(1970, 1, 1)

Segment = collections.namedtuple("Segment", "number first lineage spool_id data")
Frame = collections.namedtuple(
    "Frame", "kind source path first events first_seq detected group_at payload_at payload_len payload_crc"
)


class Newer(Exception):
    """Something was written by a newer version."""


class Reader:
    """Takes little-endian fields off the front of some bytes; what is not there is an IndexError."""

    def __init__(self, data):
        self.data, self.at = data, 0

    def take(self, length):
        if self.at + length > len(self.data):
            raise IndexError
        self.at += length
        return self.data[self.at - length : self.at]

    def number(self, length):
        return int.from_bytes(self.take(length), "little")

    def sized(self):
        return self.take(self.number(2))

    def is_empty(self):
        return self.at == len(self.data)


def segment_header(data, number):
    """Section 10, step 2: the fields of an intact header, None for a damaged one."""
    if not data.startswith(b"LAGSPOOL") or len(data) < SEGMENT_HEADER.size:
        return None
    fields = SEGMENT_HEADER.unpack_from(data)
    _, version, _, segment, first, lineage, spool_id, _, _, crc = fields
    if zlib.crc32(data[: SEGMENT_HEADER.size - 4]) != crc:
        return None
    if version != 1:
        raise Newer(f"segment version {version}")
    return Segment(segment, first, lineage, spool_id, data)


def frame_header(data, at, number):
    """Section 5: the frame whose valid header stands at an offset, or None."""
    if data[at : at + 4] != FRAME_MAGIC or at + FRAME_HEADER.size > len(data):
        return None
    fields = FRAME_HEADER.unpack_from(data, at)
    (_, kind, flags, _, source_len, path_len, payload_len, events, tag, first, first_seq, detected) = fields[:12]
    payload_crc, group_at, extra_len, crc = fields[21:]
    if extra_len > EXTRA_MAX:
        return None
    names_at = at + FRAME_HEADER.size
    payload_at = names_at + source_len + path_len + extra_len
    if payload_at > len(data):
        return None
    covered = zlib.crc32(data[at : at + FRAME_HEADER.size - 4])
    if zlib.crc32(data[names_at:payload_at], covered) != crc:
        return None
    if tag != number & 0xFFFFFFFF or kind not in (EVENTS, SNAPSHOT, DEAD_LETTER):
        return None
    if flags & ~FLAG_FORGET or payload_len > PAYLOAD_MAX:
        return None
    try:
        source = data[names_at : names_at + source_len].decode("utf-8")
        records(data[names_at + source_len + path_len : payload_at])
    except (UnicodeDecodeError, IndexError):
        return None
    path = data[names_at + source_len : names_at + source_len + path_len]
    return Frame(
        kind, source, path, first, events, first_seq, detected, group_at, payload_at, payload_len, payload_crc
    )


def records(data):
    """The records behind the names; an IndexError where they are not whole or not known."""
    reader, has_before = Reader(data), False
    while not reader.is_empty():
        tag = reader.number(1)
        if tag == 1:
            if reader.number(1) not in REASONS:
                raise IndexError
            reader.take(16)
        elif tag == 2 and not has_before:
            has_before = True
            reader.take(8)
            reader.sized().decode("utf-8")
            reader.sized()
            reader.take(52)
        else:
            raise IndexError


def payload_of(data, frame):
    """The payload, or None where it is damaged or cut off."""
    payload = data[frame.payload_at : frame.payload_at + frame.payload_len]
    if len(payload) < frame.payload_len or zlib.crc32(payload) != frame.payload_crc:
        return None
    return payload


def walk(data, number, at):
    """Section 10, step 6: every place as (offset, frame or None, payload or None)."""
    while at < len(data):
        frame = frame_header(data, at, number)
        if frame is not None:
            yield at, frame, payload_of(data, frame)
            at = min(frame.payload_at + frame.payload_len, len(data))
            continue
        yield at, None, None
        at = find_frame(data, number, at + 1)


def find_frame(data, number, at):
    """The next offset with a valid header, or the end."""
    while True:
        at = data.find(FRAME_MAGIC, at)
        if at < 0:
            return len(data)
        if frame_header(data, at, number) is not None:
            return at
        at += 1


def snapshot_of(data, number):
    """What a snapshot says that stands in for its segment's header: position, lineage, spool id."""
    frame = frame_header(data, SEGMENT_HEADER.size, number)
    payload = payload_of(data, frame) if frame is not None and frame.kind == SNAPSHOT else None
    if payload is None or len(payload) < 56:
        return None
    return int.from_bytes(payload[32:40], "little"), payload[:16], payload[16:32]


def segments(root):
    """Section 10, steps 1 to 4: the segments of the spool by number, whatever their headers."""
    known, headless = {}, {}
    for name in sorted(os.listdir(os.path.join(root, "segments"))):
        if not re.fullmatch(r"[0-9]{20}\.seg", name):
            continue
        number = int(name[:20])
        with open(os.path.join(root, "segments", name), "rb") as file:
            data = file.read()
        header = segment_header(data, number)
        if header is not None:
            if header.number == number:
                known[number] = header
            continue
        snapshot = snapshot_of(data, number)
        if snapshot is not None:
            known[number] = Segment(number, *snapshot, data)
        elif len(data) >= SEGMENT_HEADER.size and data.count(0) < len(data):
            headless[number] = data
    if not known:
        return []
    lineages = collections.Counter(segment.lineage for segment in known.values())
    lineage = max(sorted(lineages), key=lambda lineage: lineages[lineage])
    known = {number: segment for number, segment in known.items() if segment.lineage == lineage}
    for number, data in headless.items():
        before = [known[other].spool_id for other in sorted(known) if other < number][-1:]
        after = [known[other].spool_id for other in sorted(known) if other > number][:1]
        at = find_frame(data, number, SEGMENT_HEADER.size)
        if len(set(before + after)) == 1 and at < len(data):
            first = frame_header(data, at, number).first
            known[number] = Segment(number, first, lineage, (before + after)[0], data)
    return [known[number] for number in sorted(known)]


def torn_end(segment):
    """Section 9: where the torn end of the newest segment begins."""
    damage = []
    for at, frame, payload in walk(segment.data, segment.number, SEGMENT_HEADER.size):
        if frame is not None:
            damage = [place for place in damage if frame.group_at <= place]
        if payload is None:
            damage.append(at)
    return damage[0] if damage else len(segment.data)


def ends(known):
    """Section 9, two claims: the position at which each segment's positions end; none for the newest."""
    after, found = None, {}
    for segment in reversed(known):
        found[segment.number] = after if after is None else max(after, segment.first)
        after = segment.first if after is None else min(segment.first, after)
    return found


def time(millis):
    """RFC 3339 in UTC with milliseconds."""
    try:
        moment = EPOCH + datetime.timedelta(milliseconds=millis)
    except OverflowError:
        moment = EPOCH
    return f"{moment.year:04}" + moment.strftime("-%m-%dT%H:%M:%S.") + f"{moment.microsecond // 1000:03}Z"


def text(fields, name, data):
    """Text, and Base64 beside it where the text does not say all of the bytes."""
    fields[name] = data.decode("utf-8", "replace")
    try:
        data.decode("utf-8")
    except UnicodeDecodeError:
        fields[name + "_base64"] = base64.b64encode(data).decode("ascii")


def events(frame, payload):
    """Section 5, event: (continues, time, line)."""
    reader = Reader(payload)
    for _ in range(frame.events):
        word = reader.number(4)
        line = Reader(reader.take(word & (1 << 28) - 1))
        own = int.from_bytes(line.take(8), "little", signed=True) if word & 1 << 29 else frame.detected
        yield bool(word & 1 << 28), own, line.data[line.at :]


def log(root):
    """Every event that can be read, in the order of positions."""
    known = segments(root)
    if known:
        newest = known[-1]
        known[-1] = newest._replace(data=newest.data[: torn_end(newest)])
    end_of, following = ends(known), 1
    for segment in known:
        end = end_of[segment.number]
        for _, frame, payload in walk(segment.data, segment.number, SEGMENT_HEADER.size):
            if frame is None or payload is None or frame.kind != EVENTS:
                continue
            for index, (continues, own, line) in enumerate(events(frame, payload)):
                position = frame.first + index
                if position < following or end is not None and position >= end:
                    continue
                fields = {"position": position, "source": frame.source, "seq": frame.first_seq + index}
                text(fields, "path", frame.path)
                fields["time"] = time(own)
                fields["continues"] = continues
                text(fields, "data", line)
                following = position + 1
                yield fields


def dead_letters(root):
    """Section 7: the dead letters by position, the first of each."""
    found = {}
    directory = os.path.join(root, "dead-letters")
    for name in sorted(os.listdir(directory)):
        if not re.fullmatch(r"[0-9]{20}\.seg", name):
            continue
        with open(os.path.join(directory, name), "rb") as file:
            data = file.read()
        for _, frame, payload in walk(data, int(name[:20]), 0):
            if frame is None or payload is None or frame.kind != DEAD_LETTER or frame.first in found:
                continue
            reader = Reader(payload)
            status, response = reader.number(2), reader.sized().decode("utf-8")
            fields = {"position": frame.first, "source": frame.source, "seq": frame.first_seq}
            fields.update(time=time(frame.detected), status=status, response=response)
            text(fields, "data", payload[reader.at :])
            found[frame.first] = fields
    return [found[position] for position in sorted(found)]


def main(arguments):
    lists_letters = arguments[:1] == ["--dead-letters"]
    if len(arguments) != 1 + lists_letters:
        sys.exit("usage: spool_reader.py [--dead-letters] SPOOL_DIR")
    found = dead_letters(arguments[-1]) if lists_letters else log(arguments[-1])
    for fields in found:
        line = json.dumps(fields, ensure_ascii=False, separators=(",", ":"))
        sys.stdout.buffer.write(line.encode("utf-8") + b"\n")


if __name__ == "__main__":
    main(sys.argv[1:])
