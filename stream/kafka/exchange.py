"""An exchange with Kafka that ends: with its result, or with an error that names what it waited for.

The Kafka clients wait for ever for a broker that accepts connections and does not serve.
"""

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from aiokafka.errors import KafkaError

from stream.config import Config
from stream.kafka.diagnosis import unavailable

T = TypeVar("T")

ANSWER_WITHIN_S = 20.0
"""Time limit of one exchange: to connect, ask and get the answer."""
GIVE_UP_S = 2.0
"""Time that the clients of an exchange that was given up have to close."""


def ask(config: Config, waiting_for: str, exchange: Coroutine[Any, Any, T]) -> T:
    """Run an exchange to its end. Raises BrokerUnavailable."""
    return asyncio.run(within(config, waiting_for, exchange))


async def close(*clients: AIOKafkaConsumer | AIOKafkaProducer) -> None:
    """Stop clients. They wait for what they have sent, and at most GIVE_UP_S for a broker that hangs."""
    stopping = [asyncio.create_task(client.stop()) for client in clients]
    _, left = await asyncio.wait(stopping, timeout=GIVE_UP_S)
    for task in left:
        task.cancel()


async def within(config: Config, waiting_for: str, exchange: Coroutine[Any, Any, T]) -> T:
    """The result of an exchange. Raises BrokerUnavailable if the broker fails, or does not answer in time."""
    task = asyncio.create_task(exchange)
    try:
        await asyncio.wait({task}, timeout=ANSWER_WITHIN_S)
        if task.done():
            return task.result()
        loop = asyncio.get_running_loop()
        if loop.get_exception_handler() is None:
            loop.set_exception_handler(_log_unless_unclosed)
        task.cancel()
        await asyncio.wait({task}, timeout=GIVE_UP_S)
    except (KafkaError, OSError) as error:
        raise await unavailable(config, error, waiting_for) from None
    finally:
        task.cancel()
    raise await unavailable(config, TimeoutError(f"no answer within {ANSWER_WITHIN_S:.0f} s"), waiting_for)


def _log_unless_unclosed(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """Log an error of a loop, but not that a client which was given up has left its connection open."""
    if not str(context.get("message", "")).startswith("Unclosed AIOKafka"):
        loop.default_exception_handler(context)
