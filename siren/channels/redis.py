"""Parameters in Redis: what workers do to them are scripts that the server runs one at a time.

Keys of a launched epoch, all in one hash slot: `p` the model, float32 bytes; `s` the state, int32:
version, updates contained, contributions of the current step, their samples, then `applied`;
`q` the sum of the contributions at a barrier.

Adding is the one thing that Redis has to compute. Lua numbers are doubles, so a float32 difference is
rounded once, as numpy rounds it. The script unpacks `CHUNK` values of either vector into registers
at a time and writes back in blocks that stay in the processor's cache: half the time of tables of
200 values (experiments/bench/README.md).
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple, NoReturn

import numpy as np

from siren.channels.base import (
    ChannelProperties,
    Counts,
    Params,
    Push,
    Snapshot,
    StoreBusyError,
    StoreError,
)
from siren.channels.objects import check_live
from siren.worker._fields import MessageError

MAX_BYTES = 512 * 1024 * 1024
"""One string (Redis documentation, strings)."""

KEEP_S = 6 * 3600
"""Keys outlive the last access by so long: longer than any epoch, so nothing is left behind for good. Those
of an epoch go earlier: when the next one of the run places its model."""

SEED_S = 60.0
"""The largest model takes some 10 s to be read from S3 and as long to be written; twice, if a worker dies."""

BUSY_S = 0.1
CHUNK = 64
BLOCK_BYTES = 4096
_STATE = 4
_SEED_LOCK_MS = 2000
_INLINE_BYTES = 6000
"""Arguments up to this size are joined into one buffer: redis-py's own default."""
_APPLIED, _BEFORE, _GONE, _WRONG_SIZE = 1, 0, -1, -2


def _names(letter: str) -> str:
    return ",".join(f"{letter}{i}" for i in range(CHUNK))


_HEAD = """
local call, unpack_, pack = redis.call, struct.unpack, struct.pack
local P, S, Q = KEYS[1], KEYS[2], KEYS[3]
local function get(slot) return (unpack_('<i4', call('GETRANGE', S, 4 * slot, 4 * slot + 3))) end
local function set(slot, value) call('SETRANGE', S, 4 * slot, pack('<i4', value)) end
local function keep() for _, key in ipairs(KEYS) do call('EXPIRE', key, @KEEP) end end
if call('EXISTS', P, S) < 2 then return {@GONE, 0, 0} end
local worker, index, version = @STATE + tonumber(ARGV[1]), tonumber(ARGV[2]), get(0)
if get(worker) > index then return {@BEFORE, version, 0} end
"""

_BLEND = f"""
local function blend(key, u, factor)
  local n, fmt = #u, '<' .. string.rep('f', {CHUNK})
  for first = 0, n - 1, {BLOCK_BYTES} do
    local p = call('GETRANGE', key, first, first + {BLOCK_BYTES - 1})
    local out, k, at, m = {{}}, 0, 1, #p
    while at + {4 * CHUNK - 1} <= m do
      local {_names("a")} = unpack_(fmt, p, at)
      local {_names("b")} = unpack_(fmt, u, first + at)
      k = k + 1
      out[k] = pack(fmt, {",".join(f"a{i}-factor*b{i}" for i in range(CHUNK))})
      at = at + {4 * CHUNK}
    end
    while at < m do
      k = k + 1
      out[k] = pack('<f', unpack_('<f', p, at) - factor * unpack_('<f', u, first + at))
      at = at + 4
    end
    call('SETRANGE', key, first, table.concat(out))
  end
end
"""

_ADD = """
local read, factor, scale, u = tonumber(ARGV[3]), tonumber(ARGV[4]), tonumber(ARGV[5]), ARGV[6]
if call('STRLEN', P) ~= #u then return {@WRONG_SIZE, version, 0} end
local staleness = version - read
if scale > 0 then factor = factor / (1 + staleness / scale) end
blend(P, u, (unpack_('<f', pack('<f', factor))))
set(0, version + 1)
set(1, get(1) + 1)
set(worker, index + 1)
keep()
return {@APPLIED, version + 1, staleness}
"""
"""ARGV: worker, index, version read, factor, scale, vector."""

_WRITE = """
local read, state, params = tonumber(ARGV[3]), ARGV[4], ARGV[5]
if call('STRLEN', P) ~= #params or call('STRLEN', S) ~= #state then return {@WRONG_SIZE, version, 0} end
call('SET', P, params)
call('SET', S, state)
set(0, version + 1)
keep()
return {@APPLIED, version + 1, version - read}
"""
"""ARGV: worker, index, version read, the state as read plus this push, model."""

_CONTRIBUTE = """
local samples, members, rate, u = tonumber(ARGV[3]), tonumber(ARGV[4]), tonumber(ARGV[5]), ARGV[6]
if call('STRLEN', P) ~= #u then return {@WRONG_SIZE, version, 0} end
if get(2) > 0 and call('EXISTS', Q) == 0 then return {@GONE, 0, 0} end
if get(2) == 0 then call('SET', Q, u) else blend(Q, u, -1) end
set(2, get(2) + 1)
set(3, get(3) + samples)
set(worker, index + 1)
if rate > 0 and get(2) == members then
  blend(P, call('GET', Q), (unpack_('<f', pack('<f', rate))) / get(3))
  call('DEL', Q)
  set(1, get(1) + members)
  set(2, 0)
  set(3, 0)
  set(0, version + 1)
elseif rate == 0 then
  set(0, version + 1)
end
keep()
return {@APPLIED, get(0), 0}
"""
"""ARGV: worker, index, samples, members, rate, samples x vector. With a rate, the members' mean is a
step of `sync`; with rate 0 contributions are summed and every one is a version (`average`)."""


def _source(body: str) -> str:
    constants = {
        "@KEEP": KEEP_S,
        "@STATE": _STATE,
        "@APPLIED": _APPLIED,
        "@BEFORE": _BEFORE,
        "@GONE": _GONE,
        "@WRONG_SIZE": _WRONG_SIZE,
    }
    source = _HEAD + body
    for name, value in constants.items():
        source = source.replace(name, str(value))
    return source


def redis_client(url: str) -> Any:
    """A client of Redis or Valkey; a request whose answer is lost is sent again, which scripts allow for.

    Answers are parsed by hiredis where it is installed. Requests are packed in Python, which sends a
    vector as it is: hiredis copies it twice, which takes 12 times the CPU time for 1,000,000 floats
    (experiments/bench/README.md).
    """
    import redis
    from redis.backoff import ExponentialWithJitterBackoff
    from redis.connection import PythonRespSerializer
    from redis.retry import Retry

    client = redis.Redis.from_url(
        url,
        socket_connect_timeout=5,
        socket_timeout=30,
        retry=Retry(ExponentialWithJitterBackoff(base=0.05, cap=1.0), 3),
        protocol=2,
    )
    packer = PythonRespSerializer(_INLINE_BYTES, client.get_encoder().encode)
    client.connection_pool.connection_kwargs["command_packer"] = packer
    return client


def _keys(prefix: str) -> list[str]:
    return [f"{prefix}:{part}" for part in "psq"]


class _Scripts(NamedTuple):
    add: Any
    write: Any
    contribute: Any


class RedisModel:
    """The model of one launched epoch in Redis, and what barriers sum up beside it.

    Args:
        client: See `redis_client`.
        run, epoch, launch: Whose it is; keys hold them.
        size: Parameters.
        functions: n.
        left_s: Seconds until the caller must end; no request is repeated for longer than that.
    """

    properties = ChannelProperties(atomic_add=True, compare_and_swap=False, max_bytes=MAX_BYTES)

    def __init__(
        self,
        client: Any,
        run: str,
        epoch: int,
        launch: int,
        size: int,
        functions: int,
        left_s: Callable[[], float] = lambda: SEED_S,
    ) -> None:
        prefix = f"siren:{{{run}}}:{epoch}-{launch}"
        self._client = client
        self._name = prefix
        self._keys = _keys(prefix)
        # The launch before is over; it was of this epoch or of the one before.
        self._past = [key for e in (epoch - 1, epoch) for key in _keys(f"siren:{{{run}}}:{e}-{launch - 1}")]
        self._lock_key = f"{prefix}:lock"
        self._size = size
        self._functions = functions
        self._left_s = left_s
        self._seen = 0
        self._scripts = _Scripts(
            *(client.register_script(_source(body)) for body in (_BLEND + _ADD, _WRITE, _BLEND + _CONTRIBUTE))
        )

    def seed(self, load: Callable[[], Params]) -> None:
        """Puts the model there from which the epoch starts, unless it is there.

        One worker loads it, the others wait for that one, but not for longer than it may take, nor beyond
        their own time.

        Args:
            load: Reads it, float32, (size,).

        Raises:
            StoreError: The cache lost a part of it, or has no room for it.
            StoreBusyError: It does not have it in time.
        """
        wait_s = max(0.0, min(SEED_S, self._left_s()))
        until = time.monotonic() + wait_s
        while (there := self._ask(lambda: self._client.exists(*self._keys[:2]))) < 2:
            if there == 1:  # both are set at once, so that one was evicted
                self._gone()
            if self._ask(lambda: self._client.set(self._lock_key, b"1", nx=True, px=_SEED_LOCK_MS)):
                self._ask(partial(self._place, load()))
                continue
            if time.monotonic() > until:
                raise StoreBusyError(
                    f"{self._name} was not in Redis after {wait_s:.0f} s: look at the cache's memory and "
                    "load, then run the epoch again"
                )
            time.sleep(0.005)

    def _place(self, params: Params) -> None:
        state = np.zeros(_STATE + self._functions, "<i4")
        self._client.unlink(*self._past)  # a small node holds few models
        self._client.msetnx({self._keys[0]: _bytes(params), self._keys[1]: _bytes(state)})
        for key in self._keys[:2]:
            self._client.expire(key, KEEP_S)
        self._client.delete(self._lock_key)

    def version(self) -> int:
        """The version alone, without the model.

        Raises:
            StoreError: There is no model.
        """
        raw = self._ask(lambda: self._client.getrange(self._keys[1], 0, 3))
        if len(raw) < 4:
            self._gone()
        return int(np.frombuffer(raw, "<i4")[0])

    def get(self) -> Snapshot:
        """See `SharedModel.get`."""
        params, state = self._ask(lambda: self._client.mget(self._keys[:2]))
        if params is None or state is None:
            self._gone()
        if len(params) != 4 * self._size or len(state) != 4 * (_STATE + self._functions):
            raise MessageError(
                f"{self._name} in Redis holds {len(params):,} and {len(state):,} bytes, not a model of "
                f"{self._size:,} parameters for {self._functions} functions: use a cache of its own for Siren"
            )
        header, vector = np.frombuffer(state, "<i4"), np.frombuffer(params, "<f4")
        version = self._noted(int(header[0]))
        check_live(vector, version, self._name)
        return Snapshot(version, vector, int(header[1]), header[_STATE:], "")

    def add(
        self, worker: int, index: int, read_version: int, vector: Params, rate: float, scale: float
    ) -> Push:
        """Subtracts rate x vector from the model, once for each (worker, index).

        Args:
            worker, index: Which push this is.
            read_version: Version that the gradient was taken at.
            vector: What is subtracted.
            rate: Its factor.
            scale: The factor is divided by 1 + staleness / scale; 0 for no damping.
        """
        arguments = [worker, index, read_version, repr(float(rate)), repr(float(scale)), _bytes(vector)]
        return self._push(self._scripts.add, arguments)

    def write(self, worker: int, index: int, read: Snapshot, params: Params) -> Push:
        """See `SharedModel.write`."""
        state = np.zeros(_STATE + self._functions, "<i4")
        state[1] = read.contained + 1
        state[_STATE:] = read.applied
        state[_STATE + worker] = index + 1
        arguments = [worker, index, read.version, _bytes(state), _bytes(params)]
        return self._push(self._scripts.write, arguments)

    def contribute(
        self, worker: int, index: int, vector: Params, samples: int, members: int, rate: float
    ) -> int:
        """Adds samples x vector to the sum at a barrier, once for each (worker, index); the version after it.

        Args:
            worker, index: Which contribution this is.
            vector: A mean gradient, or a model less the one it started from; scaled in place.
            samples: Its weight.
            members: Contributions that complete a step.
            rate: With that many, rate x the mean is subtracted from the model; 0 only sums.
        """
        with np.errstate(all="ignore"):
            np.multiply(vector, np.float32(samples), out=vector)
        arguments = [worker, index, samples, members, repr(float(rate)), _bytes(vector)]
        return self._push(self._scripts.contribute, arguments).version

    def mean_of_sum(self, start: Params) -> tuple[int, Params]:
        """(functions that contributed, `start` plus the weighted mean of what they did) under `average`."""
        total, state = self._ask(lambda: self._client.mget([self._keys[2], self._keys[1]]))
        if state is None:
            self._gone()
        header = np.frombuffer(state, "<i4")
        if not header[0]:
            return 0, start
        if total is None or len(total) != 4 * self._size:
            self._gone()
        mean = start + np.frombuffer(total, "<f4") / np.float64(header[3])
        return int(header[0]), mean.astype(np.float32)

    def _push(self, script: Any, arguments: list[Any]) -> Push:
        outcome, version, staleness = (
            int(x) for x in self._ask(lambda: script(keys=self._keys, args=arguments))
        )
        if outcome == _GONE:
            self._gone()
        if outcome == _WRONG_SIZE:
            raise MessageError(
                f"{self._name} in Redis is not of {self._size:,} parameters: use a cache of its own for Siren"
            )
        return Push(outcome == _APPLIED, False, self._noted(version), staleness)

    def _noted(self, version: int) -> int:
        """The version, which never falls unless the cache forgot."""
        if version < self._seen:
            self._gone()
        self._seen = version
        return version

    def _ask(self, call: Callable[[], Any]) -> Any:
        """The answer of a request that is sent again while the server says that it is busy.

        It says so to everybody while a script has run for more than 5 s (`busy-reply-threshold`), which an
        addition of some 70 million floats does; what it refused was not carried out. A server that is full
        refuses a write before its script has changed anything (Redis documentation, scripting).

        Raises:
            StoreBusyError: The caller's time is over.
            StoreError: The server is full.
        """
        from redis.exceptions import OutOfMemoryError, ResponseError

        until = time.monotonic() + self._left_s()
        while True:
            try:
                return call()
            except OutOfMemoryError as error:
                raise StoreError(
                    f"Redis has no room for {self._name} ({error}): use a node with more memory or a smaller "
                    f"model, or wait {KEEP_S // 3600} h until what ended runs left there is gone, then run "
                    "the epoch again"
                ) from error
            except ResponseError as error:
                if not str(error).startswith("BUSY "):
                    raise
                if time.monotonic() + BUSY_S > until:
                    raise StoreBusyError(
                        f"Redis was busy with scripts until this function's time was over ({self._name}): "
                        "use fewer functions, a smaller model, or average, then run the epoch again"
                    ) from error
            time.sleep(BUSY_S)

    def _gone(self) -> NoReturn:
        raise StoreError(
            f"{self._name} is gone from Redis, and its updates with it: the cache restarted or evicted it; "
            "give it more memory and the policy noeviction, then run the epoch again"
        )


def _bytes(vector: Params | Counts) -> memoryview:
    return np.ascontiguousarray(vector).data.cast("B")


class RedisBarrier:
    """`sync` over Redis: the server sums the gradients, and takes the step when all are in.

    Args:
        model: The shared model.
        worker: This function.
        members: How many functions have a push of a step, `Task.members`.
        rate: Learning rate.
    """

    def __init__(self, model: RedisModel, worker: int, members: Callable[[int], int], rate: float) -> None:
        self._model = model
        self._worker = worker
        self._members = members
        self._rate = rate

    def poll(self, step: int) -> tuple[int, Params] | None:
        """See `Barrier.poll`."""
        if self._model.version() < step:
            return None
        found = self._model.get()
        return found.version, found.params

    def contribute(self, step: int, gradient: Params, samples: int) -> None:
        """See `Barrier.contribute`."""
        self._model.contribute(self._worker, step, gradient, samples, self._members(step), self._rate)
