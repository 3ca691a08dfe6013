"""The rights that docs/messages.md lists are enough on a Kafka that grants nothing else."""

import json
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
from kafka import KafkaAdminClient
from kafka.admin import ACL, ACLOperation, ACLPermissionType, ResourcePattern, ResourceType

from stream.config import Config, KafkaSettings, TopicSettings
from stream.kafka.shapes import SHAPES
from stream.local.embedded_broker import free_port
from tests.conftest import with_topics
from tests.e2e.conftest import anabranch, succeed, until
from tests.e2e.test_serve import Shop
from tests.kafka import missing, restartable_broker

pytestmark = [pytest.mark.broker, pytest.mark.slow]

PAGE = Path(__file__).parents[2] / "docs" / "messages.md"
FIELDS = {getattr(TopicSettings(), field): field for field in SHAPES}
ROLES = ("worker", "trainer", "operator", "serve")
Rights = dict[str, tuple[set[str], set[str]]]


def rights() -> Rights:
    """The fields of `[topics]` that each role may write and read, read from the page."""
    table = PAGE.read_text().partition("| who | writes | reads |")[2].partition("\n\n")[0]
    found = {}
    for line in table.splitlines()[2:]:
        who, *cells = (cell.strip() for cell in line.strip("|").split("|"))
        writes, reads = ({FIELDS[name] for name in FIELDS if f"`{name}`" in cell or cell == "all"} for cell in cells)
        found[who] = writes, reads
    return found


def lists(config: Config, given: Rights) -> list[ACL]:
    """The same as access control lists of Kafka, with the rights beside the table."""
    name = {field: getattr(config.topics, field) for field in FIELDS.values()}
    topics, groups = ResourceType.TOPIC, ResourceType.GROUP
    allowed = [("worker", ACLOperation.READ, groups, group) for group in (config.group, f"{config.group}-0")]
    for who in ROLES:
        writes, reads = given[who]
        allowed += [(who, ACLOperation.WRITE, topics, name[field]) for field in writes]
        allowed += [(who, ACLOperation.READ, topics, name[field]) for field in reads]
        allowed += [(who, ACLOperation.DESCRIBE, topics, topic) for topic in name.values()]
    allow = ACLPermissionType.ALLOW
    return [ACL(f"User:{who}", "*", may, allow, ResourcePattern(kind, of)) for who, may, kind, of in allowed]


@pytest.fixture(scope="module")
def guarded() -> Iterator[tuple[str, str]]:
    """Two addresses of a broker with access control: one grants everything, one asks for a user."""
    if reason := missing():
        pytest.skip(reason)
    open_to_all, with_users, controller = (f"127.0.0.1:{free_port()}" for _ in range(3))
    users = " ".join(f'user_{who}="secret-of-{who}"' for who in ROLES)
    plain = "org.apache.kafka.common.security.plain.PlainLoginModule required"
    listeners = f"PLAINTEXT://{open_to_all},SASL_PLAINTEXT://{with_users}"
    properties = {
        "listeners": f"{listeners},CONTROLLER://{controller}",
        "advertised.listeners": listeners,
        "controller.quorum.voters": f"1@{controller}",
        "listener.security.protocol.map": "CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT,SASL_PLAINTEXT:SASL_PLAINTEXT",
        "sasl.enabled.mechanisms": "PLAIN",
        "listener.name.sasl_plaintext.plain.sasl.jaas.config": f"{plain} {users};",
        "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
        "super.users": "User:ANONYMOUS",
    }
    with restartable_broker(**properties):
        yield open_to_all, with_users


def test_the_rights_on_the_page_are_enough(guarded, tmp_path):
    open_to_all, with_users = guarded
    made = with_topics(open_to_all, tmp_path / "data")
    admin = KafkaAdminClient(bootstrap_servers=open_to_all)
    admin.create_acls(lists(made, rights()))
    admin.close()

    def of(who: str) -> Config:
        kafka = KafkaSettings(security="sasl_plaintext", sasl_user=who, sasl_password=f"secret-of-{who}")
        return msgspec.structs.replace(made, broker=with_users, kafka=kafka)

    def run(*arguments: str) -> str:
        return succeed(of("operator"), *arguments, within_s=90).stdout

    clicks = tmp_path / "clicks.jsonl"
    lines = [f'{{"user": "user-{n % 20}", "item": "item-{n % 7}"}}\n' for n in range(600)]
    clicks.write_text("".join([*lines, '{"user": "ann", "item": "milk", "event": "teleport"}\n']))
    quick = {"ANABRANCH_TRAINING__EPOCHS": "1", "ANABRANCH_TRAINING__WARM_UP_EPOCHS": "1"}
    with anabranch(of("worker"), "worker"), anabranch(of("trainer"), "trainer", env=quick):
        run("publish", str(clicks))
        watched = run("watch", "user-3", "--from-start", "--limit", "1", "--json")
        assert json.loads(watched)["user"] == "user-3"
        log = made.data / "worker.log"
        until(lambda: "trainer ready" in (made.data / "trainer.log").read_text())
        assert "000001" in run("retrain", "--wait")
        until(lambda: "serving version 000001" in log.read_text())
        run("pause")
        run("resume")
        assert "000001" in run("rollback", "000001")
        status = json.loads(run("status", "--json"))
        assert [p["lag"] for p in status["partitions"]] == [0, 0]
        assert {m["doing"] for m in status["members"]} == {"running"}, "worker and trainer may publish their state"
        far = msgspec.structs.replace(of("operator"), data=tmp_path / "far")
        assert "item-" in succeed(far, "user", "user-4", within_s=90).stdout
        shop = Shop()
        with anabranch(of("serve"), "serve", env=shop.environment):
            until(shop.is_ready)
            assert shop.ask("/v1/events", {"user": "user-5", "item": "item-1"})[0] == 202
            until(lambda: shop.recommended("user-5")["fallback"] is None)
            assert shop.ask("/v1/items/item-1/related")[1]["fallback"] is None
        run("forget", "user-3")
        run("backup", str(tmp_path / "kept"))
        assert "the group has not confirmed" not in log.read_text()
        assert log.read_text().count("are not checked: the broker at") == 1  # nobody here may describe settings


def test_the_page_lists_the_rights_of_each_role():
    found = rights()
    assert found["worker"][0] == {
        "recommendations",
        "replies",
        "dead_letters",
        "command_replies",
        "members",
        "examples",
    }
    assert found["trainer"][1] == {"models", "commands", "examples"}
    assert len(found["operator"][1]) == 11
