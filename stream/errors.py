"""What stops a command, told to a person.

AnabranchError           exit 1: what was wrong, the value, why it matters, what mends it
├── ConfigError          exit 2: a setting is unknown, mistyped or out of range
├── BrokerUnavailable    no Kafka broker answers
│   └── BrokerRefused    one answers, and will not have us: TLS, user or password are not what it wants
├── TopicMismatch        a topic is missing or has another shape than the state was built for
└── DataDirectoryError   the data directory cannot be used
"""


class AnabranchError(Exception):
    """A command cannot do what was asked; the message is for the person who asked."""


class ConfigError(AnabranchError):
    """A setting is unknown, of the wrong type or out of range; the message names the key."""


class BrokerUnavailable(AnabranchError):
    """No Kafka broker answers at the address."""


class BrokerRefused(BrokerUnavailable):
    """A Kafka broker answers, and will not have us as we come; the message names the setting that mends it."""


class TopicMismatch(AnabranchError):
    """A topic is missing, or its partitions differ from what the state or its sister topics need."""


class DataDirectoryError(AnabranchError):
    """The data directory is not writable, or another worker owns it."""
