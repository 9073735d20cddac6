"""A small HTTP service whose work is done by worker processes, with a time limit for each request.

A request that would take for ever costs one worker, which is killed and replaced; all others go on.
"""

import asyncio
import json

from miniflow import Engine, EngineConfig, TaskTimeout, WorkerCrashed

LIMIT = 1.0  # seconds that a request may compute


def primes_below(limit: int) -> int:
    sieve = bytearray([1]) * max(limit, 2)
    for number in range(2, int(limit**0.5) + 1):
        if sieve[number]:
            sieve[number * number :: number] = bytes(len(range(number * number, limit, number)))
    return sum(sieve[2:limit])


def spin() -> None:
    while True:
        pass


class Service:
    def __init__(self, engine: Engine) -> None:
        self.engine = engine

    async def answer(self, path: str) -> tuple[int, object]:
        try:
            if path.startswith("/primes/"):
                count = await self.engine.run(primes_below, int(path[8:]), timeout=LIMIT)
                return 200, {"primes": count}
            if path == "/spin":
                return 200, await self.engine.run(spin, timeout=LIMIT)
        except TaskTimeout:
            return 504, {"error": f"not done in {LIMIT} s"}
        except WorkerCrashed as error:
            return 502, {"error": str(error)}
        except ValueError as error:
            return 400, {"error": str(error)}
        return 404, {"error": f"no {path}"}

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        path = (await reader.readline()).decode().split(" ")[1]
        while (await reader.readline()).strip():
            pass  # the other header lines
        status, value = await self.answer(path)
        body = json.dumps(value).encode()
        head = f"HTTP/1.1 {status} .\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n"
        writer.write(head.encode() + body)
        await writer.drain()
        writer.close()


async def get(port: int, path: str) -> tuple[int, object]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
    head, _, body = (await reader.read()).partition(b"\r\n\r\n")
    writer.close()
    return int(head.split()[1]), json.loads(body)


async def main() -> None:
    with Engine(EngineConfig(cpu_bound_count=2)) as engine:
        server = await asyncio.start_server(Service(engine).serve, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        paths = ["/spin", *(f"/primes/{10 ** (n % 6)}" for n in range(60)), "/primes/x", "/nothing"]
        answers = dict(zip(paths, await asyncio.gather(*(get(port, path) for path in paths))))
        server.close()
    assert answers["/spin"][0] == 504
    assert answers["/primes/100000"] == (200, {"primes": 9592})
    assert answers["/primes/x"][0] == 400
    assert answers["/nothing"][0] == 404
    print("\n".join(f"{status} {path}: {value}" for path, (status, value) in answers.items()))
    print("ok")


if __name__ == "__main__":
    asyncio.run(main())
