"""Settings come from a file, the environment and flags; the error for a wrong one names it."""

import re
from pathlib import Path

import pytest

from state.settings import Kind
from stream.config import Config
from stream.errors import ConfigError
from stream.kafka.shapes import shapes
from stream.load_config import load

ROOT = Path(__file__).parent.parent.parent


def written(folder: Path, text: str) -> Path:
    file = folder / "anabranch.toml"
    file.write_text(text)
    return file


def test_a_flag_overrides_the_environment_which_overrides_the_file(tmp_path):
    file = written(tmp_path, 'broker = "file:1"\n[trainer]\nevery_s = 60\nevery_events = 7\n')
    env = {"ANABRANCH_BROKER": "env:1", "ANABRANCH_TRAINER__EVERY_S": "30"}
    config = load(file, env, broker="flag:1")
    assert (config.broker, config.trainer.every_s, config.trainer.every_events) == ("flag:1", 30.0, 7)


def test_a_variable_can_name_the_file(tmp_path):
    file = written(tmp_path, 'group = "shop"')
    assert load(None, {"ANABRANCH_CONFIG": str(file)}).group == "shop"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("brokr = 'x:1'", "unknown setting 'brokr'"),
        ("[trainer]\nevery = 3", "unknown setting 'trainer.every'"),
        ("[clicks.fields]\nuserid = 'x'", "unknown setting 'clicks.fields.userid'"),
        ("[trainer]\nevery_s = 'often'", "setting 'trainer.every_s'"),
        ("[trainer]\nevery_s = 0", "setting 'trainer.every_s'"),
        ("[worker]\npoll_max_events = -1", "setting 'worker.poll_max_events'"),
        ("[model]\ndropout = 1.5", "setting 'model.dropout'"),
        ("[state.kinds.view]\nrole = 'postive'", "setting 'state.kinds.view.role'"),
        ("[state.kinds.view]\nwieght = 2", "unknown setting 'state.kinds.view.wieght'"),
        ("[state.kinds.veiw]\nweight = 2", "setting 'state.kinds.veiw': object missing required field `role`"),
        ("[state.kinds.view]\nweight = -1", "setting 'state.kinds.view.weight'"),
        ("[state]\nkinds = 3", "setting 'state.kinds'"),
        ("[training]\nloss = 'half'", "'half', it is one of auto, full, sampled"),
        ("[state.kinds.view]\nrole = 'like'", "'like', it is one of positive, negative, undo, forget"),
        ("[topics]\nclicks = 'shop clicks'", "clicks = 'shop clicks' is no name for a topic"),
        ("[topics]\nprefix = 'shop/'", "'shop/clicks' is no name for a topic"),
        ("[topics]\nitems = 'clicks'", "clicks and items are both 'clicks'"),
        ("[topics]\nprefix = 3", "setting 'topics.prefix'"),
        ("[model]\nheads = 3", "dim = 64 is not divisible by heads = 3"),
        ("[model]\nsequence_encoder = 'bert4rec'\nheads = 3", "dim = 64 is not divisible by heads = 3"),
        ("[training]\nloss = 'scalable'", "'scalable', it is one of auto, full, sampled"),
        *(
            (f"[training]\n{name} = 0", f"unknown setting 'training.{name}'")
            for name in (
                "distil",
                "graph_half_life_s",
                "scalable_buckets",
                "scalable_bucket_size",
                "table_std",
                "transfer_stops_at",
                "transfer_view",
                "ultragcn_w1",
                "ultragcn_w2",
                "ultragcn_w3",
                "ultragcn_w4",
                "user_learning_rate",
            )
        ),
        ("[ranking]\nonline_clicks = 20", "online_clicks = 20: weights are chosen on 50 clicks at least"),
        ("[worker]\nheartbeat_ms = 5900", "heartbeat_ms = 5900 is more than a third of session_timeout_ms = 6000"),
        ("[kafka]\nsecurity = 'tls'", "setting 'kafka.security'"),
        ("[kafka]\nsecurty = 'ssl'", "unknown setting 'kafka.securty'"),
        ("[kafka]\nsecurity = 'sasl_ssl'", "setting 'kafka': security = 'sasl_ssl' needs kafka.sasl_user"),
        ("[kafka]\nsecurity = 'sasl_ssl'\nsasl_user = 'ann'", "needs kafka.sasl_password, which is not set"),
        ("[kafka]\nsecurity = 'ssl'\nsasl_user = 'ann'", "sasl_user is set, but security = 'ssl' sends no user"),
        ("[kafka]\nsasl_password = 'x'", "sasl_password is set, but security = 'plaintext' sends no user"),
        ("[kafka]\nca_file = '/dev/null'", "ca_file is set, but security = 'plaintext' is not encrypted"),
        ("[kafka]\nsecurity = 'ssl'\nca_file = '/nowhere'", "ca_file = '/nowhere': there is no such file"),
        ("[kafka]\nsecurity = 'ssl'\nkey_file = 'anabranch.toml'", "key_file is set, but not kafka.cert_file"),
        ("[trainer", "not valid TOML"),
        ("broker = 'localhost:abc'", "setting 'broker': 'localhost:abc' is not HOST:PORT"),
        ("broker = 'a:1, b:'", "setting 'broker': 'b:' is not HOST:PORT"),
        ("broker = 'a:65536'", "setting 'broker': 'a:65536' is not HOST:PORT"),
        ("broker = 'http://a:1'", "setting 'broker': 'http://a:1' is no address of Kafka"),
        ("broker = 'a..b:1'", "setting 'broker': 'a..b:1' is not HOST:PORT"),
    ],
)
def test_a_wrong_setting_is_refused_by_name(tmp_path, monkeypatch, text, message):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match=message):
        load(written(tmp_path, text), {})


@pytest.mark.parametrize("broker", ["", "kafka", "a:9092, b:9093", "[::1]:9092", "[::1]"])
def test_an_address_that_the_kafka_clients_accept_is_accepted(broker):
    assert load(None, {}, broker=broker).broker == broker


def test_a_directory_is_refused_as_a_configuration_file(tmp_path):
    with pytest.raises(ConfigError, match=r"the configuration file '.*' cannot be read: Is a directory"):
        load(tmp_path, {})


def test_a_value_that_is_not_utf8_is_refused_by_the_name_of_its_flag():
    with pytest.raises(ConfigError, match=r"--data: 'caf\\udce9' is not UTF-8"):
        load(None, {}, data=Path("caf\udce9"))


def test_an_unknown_variable_is_refused_by_its_name():
    with pytest.raises(ConfigError, match="environment variable ANABRANCH_PORT: unknown setting 'port'"):
        load(None, {"ANABRANCH_PORT": "tcp://10.0.0.1:80"})


def test_the_sample_shows_every_setting_with_its_default(tmp_path):
    sample = (ROOT / "deploy/anabranch.toml").read_text()
    uncommented = "\n".join(line.removeprefix("# ") for line in sample.splitlines())
    assert load(written(tmp_path, uncommented), {}) == Config()
    assert load(ROOT / "deploy/anabranch.toml", {}) == Config()


def test_a_built_in_kind_is_configured_on_top_of_its_defaults(tmp_path):
    text = "[state.kinds.view]\nweight = 0.1\n[state.kinds.wishlist]\nrole = 'positive'"
    kinds = load(written(tmp_path, text), {"ANABRANCH_STATE__KINDS__CART__WEIGHT": "2"}).state.kinds
    assert kinds["view"] == Kind("positive", 0.1)
    assert kinds["cart"] == Kind("positive", 2.0)
    assert kinds["wishlist"] == Kind("positive", 1.0)
    assert kinds["hide"] == Kind("negative")


def test_a_prefix_gives_a_second_installation_topics_and_a_group_of_its_own(tmp_path):
    first, second = load(None, {}), load(written(tmp_path, '[topics]\nprefix = "second-"'), {})
    assert (second.topics.clicks, second.topics.dead_letters) == ("second-clicks", "second-dead-letters")
    assert second.group == "second-anabranch"
    assert not set(shapes(first)) & set(shapes(second))


def test_a_name_that_is_set_gets_no_prefix_even_if_it_is_the_default(tmp_path):
    file = written(tmp_path, 'group = "anabranch"\n[topics]\nclicks = "clicks"\nmodels = "pointers"\n')
    config = load(file, {"ANABRANCH_TOPICS__PREFIX": "second-"})
    assert (config.topics.clicks, config.topics.models, config.topics.items) == ("clicks", "pointers", "second-items")
    assert config.group == "anabranch"


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("topics.click", "topics.clicks"),
        ("trainer_every_s", "trainer.every_s"),
        ("triner.every_s", "trainer"),
        ("k", "ranking.k"),
        ("fields", "clicks.fields"),
        ("clicks.ts_unit", "clicks.fields.ts_unit"),
    ],
)
def test_an_unknown_setting_is_answered_with_the_one_that_was_meant(tmp_path, name, meant):
    (tmp_path / "a.toml").write_text(f"{name} = 1")
    with pytest.raises(ConfigError, match=rf"did you mean '{re.escape(meant)}'\?"):
        load(tmp_path / "a.toml", {})
    variable = f"ANABRANCH_{name.upper().replace('.', '__')}"
    with pytest.raises(ConfigError, match=f"did you mean ANABRANCH_{meant.upper().replace('.', '__')}"):
        load(None, {variable: "1", "ANABRANCH_DATA": str(tmp_path)})


@pytest.mark.parametrize("variable", ["RANKING__REPEAT_WEIGHT", "TRAINER__EVERY_S", "WORKER__AB"])
def test_nan_is_refused_by_name(variable):
    with pytest.raises(ConfigError, match=variable.lower().replace("__", ".")):
        load(None, {f"ANABRANCH_{variable}": "nan"})
