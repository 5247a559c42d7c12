"""A server of log-agent.v1: stores each event once in the file that it is given, answers out of order, breaks off."""
import asyncio
import json
import os
import signal
import sys

import websockets

FRAME_BYTES_MAX = 64 * 1024
out = open(sys.argv[1], "a", encoding="utf-8")
stored = set()
frames = 0


def store(frame):
    spool = frame["key"].split("-")[0]
    assert len(spool) == 32 and frame["agentName"] == "agent1"
    ranges = [tuple(map(int, r.split("-"))) for r in frame["seq"].split(", ")]
    assert len(ranges) == len(frame["sources"])
    for (first, last), source in zip(ranges, frame["sources"]):
        assert last - first + 1 == len(source["logs"])
        for seq, log in enumerate(source["logs"], first):
            identity = (spool, source["sourceName"], seq)
            if identity not in stored:
                stored.add(identity)
                out.write(json.dumps({"seq": seq, "data": log["data"]}) + "\n")
    out.flush()
    os.fsync(out.fileno())


async def serve(socket, _path=None):
    global frames
    assert socket.subprotocol == "log-agent.v1"
    answers = []

    async def answer_later(answer):
        await asyncio.sleep(0.01)
        await socket.send(json.dumps(answer))

    async for text in socket:
        frame = json.loads(text)
        frames += 1
        if frames % 11 == 3:
            await socket.close(1012, "restarting")
            return
        if frames % 7 == 2:
            await socket.send(json.dumps({"nack": frame["key"], "status": 503, "reason": "busy"}))
            continue
        store(frame)
        if frames % 5 == 4:
            # The answer is lost.
            socket.transport.abort()
            return
        answer = {"ack": frame["key"]}
        if frames % 2:
            await socket.send(json.dumps(answer))
        else:
            # Overtaken by those that come meanwhile.
            answers.append(asyncio.ensure_future(answer_later(answer)))


async def main():
    stop = asyncio.get_running_loop().create_future()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set_result, None)
    server = websockets.serve(
        serve, "127.0.0.1", 0, subprotocols=["log-agent.v1"], max_size=FRAME_BYTES_MAX
    )
    async with server as listening:
        print(listening.sockets[0].getsockname()[1], flush=True)
        await stop


asyncio.run(main())
