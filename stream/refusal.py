"""Why a Kafka broker does not talk to us."""

from stream.config import Config
from stream.errors import BrokerUnavailable


async def unavailable(config: Config, error: Exception) -> BrokerUnavailable:
    """What to raise where a client failed with `error`."""
    return BrokerUnavailable(
        f"no Kafka broker answers at {config.broker}: is it running, is --broker right, does it want TLS or SASL? "
        f"See [kafka] in docs/configuration.md ({error})"
    )
