"""Errors that end a command with a message for a person.

AnabranchError           exit 1: what was wrong, the value, why it matters, the command that fixes it
├── ConfigError          exit 2: a setting is unknown, mistyped or out of range
├── BrokerUnavailable    no Kafka broker answers
│   └── BrokerRefused    a broker answers and refuses the connection: TLS, user, password or rights
├── TopicMismatch        a topic is missing or has the wrong number of partitions
├── DataDirectoryError   the data directory cannot be used
└── GroupInstanceTaken   another worker has joined the group under this one's id
"""


class AnabranchError(Exception):
    """A command failed; the message is for the person who ran it."""


class ConfigError(AnabranchError):
    """A setting is unknown, of the wrong type or out of range; the message names the key."""


class BrokerUnavailable(AnabranchError):
    """No Kafka broker answers at the address."""


class BrokerRefused(BrokerUnavailable):
    """A Kafka broker answers and refuses the connection; the message names the setting to change."""


class TopicMismatch(AnabranchError):
    """A topic is missing, or its number of partitions does not fit the state or another topic."""


class DataDirectoryError(AnabranchError):
    """The data directory is not writable, or another process uses it."""


class GroupInstanceTaken(AnabranchError):
    """Another worker has joined the group under this worker's `group.instance.id`."""
