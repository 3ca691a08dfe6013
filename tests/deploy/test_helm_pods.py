"""The pods of the chart: what they may do, what they load, and what they are asked."""

import json
import re
from pathlib import Path

import msgspec
import pytest

from stream.config import Config
from stream.load_config import load
from tests.deploy.chart import (
    EXAMPLES,
    MISSING,
    ROOT,
    Object,
    containers,
    helm,
    objects_of,
    of_kind,
    pods,
    render,
    set_in,
    template,
)

pytest.importorskip("yaml", reason="no PyYAML: pip install -e '.[ops]'")

pytestmark = [pytest.mark.ops, pytest.mark.skipif(helm() is None, reason=MISSING)]

by_example = pytest.mark.parametrize("example", EXAMPLES)
PORTS = {"worker": 8081, "trainer": 8082, "serve": 8080}
CHART_OWNS = {"worker": ("http", "instance", "group_instance_id"), "trainer": ("http",), "serve": ("http", "instance")}


@by_example
def test_every_pod_satisfies_restricted_pod_security(example):
    found = list(pods(objects_of(render(example))))
    assert len(found) >= 4
    for name, spec, _ in found:
        pod = spec["securityContext"]
        assert pod["runAsNonRoot"] is True, name
        assert pod["runAsUser"] == pod["runAsGroup"] == pod["fsGroup"] == 10001, name
        assert pod["seccompProfile"] == {"type": "RuntimeDefault"}, name
        assert not {"hostNetwork", "hostPID", "hostIPC"} & spec.keys(), name
        assert spec["automountServiceAccountToken"] is False, name
        assert spec["enableServiceLinks"] is False, name
        allowed = {"emptyDir", "configMap", "secret", "persistentVolumeClaim"}
        assert all(volume.keys() - {"name"} <= allowed for volume in spec.get("volumes", [])), name


@by_example
def test_every_container_satisfies_restricted_pod_security(example):
    for name, container in containers(objects_of(render(example))):
        own = container["securityContext"]
        assert own["allowPrivilegeEscalation"] is False, name
        assert own["capabilities"] == {"drop": ["ALL"]}, name
        assert own["readOnlyRootFilesystem"] is True, name
        assert not {"privileged", "procMount", "runAsUser", "seccompProfile"} & own.keys(), name
        assert all("hostPort" not in port for port in container.get("ports", [])), name
        assert container["resources"]["requests"].keys() == {"cpu", "memory"}, name
        assert container["resources"]["limits"].keys() == {"memory"}, "a throttled worker loses its partitions"


def configuration(objects: list[Object], container: Object, folder: Path) -> Config:
    """What a container loads: its file and its variables, with a text for each secret."""
    [config] = [o for o in of_kind(objects, "ConfigMap") if o["metadata"]["name"].endswith("-config")]
    text = config["data"]["anabranch.toml"].replace("/etc/anabranch-tls/", f"{folder}/")
    for name in re.findall(rf'"{folder}/(.*)"', text):
        (folder / name).touch(0o600)
    (folder / "anabranch.toml").write_text(text)
    env = {e["name"]: e.get("value", "0123456789-a-secret-or-a-name") for e in container["env"]}
    return load(folder / "anabranch.toml", {name: text for name, text in env.items() if name != "ANABRANCH_CONFIG"})


@by_example
def test_every_container_loads_its_configuration(example, tmp_path):
    objects = objects_of(render(example))
    loaded = {c["name"]: configuration(objects, c, tmp_path) for _, c in containers(objects) if "env" in c}
    assert loaded.keys() == {"worker", "trainer", "serve", "init"}
    assert all(config.data == Path("/data/anabranch") for config in loaded.values())
    for config in loaded.values():
        assert (config.worker.http, config.trainer.http, config.serve.http) == (":8081", ":8082", ":8080")
    if example in ("production", "locked-down"):
        assert loaded["worker"].kafka.signing_key
        assert loaded["serve"].serve.operate_token
        assert not loaded["worker"].serve.operate_token, "a worker needs no token"


def test_any_setting_can_be_set(tmp_path):
    settings = msgspec.json.decode(msgspec.json.encode(Config(), enc_hook=str))
    settings |= {"broker": "kafka:9092", "artifacts": 's3://bucket/a "quoted" name ü'}
    settings["state"]["kinds"]["wish list"] = {"role": "positive", "weight": 0.25}

    def without_the_charts(tree: Object) -> Object:
        owned = {"data": None} | CHART_OWNS
        return {
            section: {name: value for name, value in part.items() if name not in owned.get(section, ())}
            if isinstance(part, dict) else part
            for section, part in tree.items() if section != "data"
        }  # fmt: skip

    file = tmp_path / "values.yaml"
    file.write_text(json.dumps({"config": without_the_charts(settings)}))
    done = template("--values", str(file))
    assert done.returncode == 0, done.stderr
    objects = objects_of(done.stdout)
    [worker] = [container for _, container in containers(objects) if container["name"] == "worker"]
    loaded = msgspec.json.decode(msgspec.json.encode(configuration(objects, worker, tmp_path), enc_hook=str))
    assert without_the_charts(loaded) == without_the_charts(settings)


def test_a_worker_has_the_name_of_its_pod():
    names = {}
    for name, container in containers(objects_of(render("production"))):
        for variable in container.get("env", []):
            if "INSTANCE" in variable["name"]:
                names[name, variable["name"]] = variable["valueFrom"]["fieldRef"]["fieldPath"]
    assert names == {
        ("anabranch-learner", "ANABRANCH_WORKER__INSTANCE"): "metadata.name",
        ("anabranch-learner", "ANABRANCH_WORKER__GROUP_INSTANCE_ID"): "metadata.name",
        ("anabranch-worker", "ANABRANCH_WORKER__INSTANCE"): "metadata.name",
        ("anabranch-worker", "ANABRANCH_WORKER__GROUP_INSTANCE_ID"): "metadata.name",
        ("anabranch-serve", "ANABRANCH_SERVE__INSTANCE"): "metadata.name",
    }


def test_a_static_member_has_time_to_come_back_and_others_have_none():
    def session_ms(*changes: str) -> str:
        config = of_kind(set_in("minimal", *changes), "ConfigMap")[0]["data"]["anabranch.toml"]
        return ",".join(re.findall(r"session_timeout_ms = (\d+)", config))

    assert session_ms() == "45000"
    assert session_ms("config.worker.session_timeout_ms=30000") == "30000"
    assert session_ms("worker.staticMembership=false") == ""
    names = {
        v["name"] for _, c in containers(set_in("minimal", "worker.staticMembership=false")) for v in c.get("env", [])
    }
    assert "ANABRANCH_WORKER__GROUP_INSTANCE_ID" not in names


def test_a_worker_that_answers_over_http_has_the_tokens():
    for name, container in containers(set_in("production", "config.worker.api=true")):
        if container["name"] == "worker":
            names = {variable["name"] for variable in container["env"]}
            assert {f"ANABRANCH_SERVE__{right}_TOKEN" for right in ("READ", "WRITE", "OPERATE")} <= names, name


@by_example
def test_every_secret_comes_from_a_secret(example):
    objects = objects_of(render(example))
    for name, container in containers(objects):
        for variable in container.get("env", []):
            if re.search(r"PASSWORD|TOKEN|SIGNING_KEY", variable["name"]):
                assert "secretKeyRef" in variable["valueFrom"], (name, variable["name"])
    for config in of_kind(objects, "ConfigMap"):
        text = "".join(config["data"].values())
        assert not re.search(r"^\s*(sasl_password|signing_key|\w+_token) =", text, re.M)


@by_example
def test_each_role_has_its_port_and_its_three_probes(example):
    roles = {c["name"]: c for _, c in containers(objects_of(render(example))) if c["name"] in PORTS}
    assert roles.keys() == PORTS.keys()
    for role, container in roles.items():
        assert container["args"] == [role]
        assert container["ports"] == [{"name": role, "containerPort": PORTS[role]}]
        assert {kind: container[f"{kind}Probe"]["httpGet"] for kind in ("startup", "liveness", "readiness")} == {
            "startup": {"path": "/startupz", "port": role},
            "liveness": {"path": "/livez", "port": role},
            "readiness": {"path": "/readyz", "port": role},
        }


def test_the_pods_run_the_image_as_it_is_built():
    text = (ROOT / "deploy/Dockerfile").read_text()
    assert re.findall(r"^USER (.*)$", text, re.M)[-1] == "10001:10001"
    assert re.search(r'^ENTRYPOINT \[.*"anabranch"\]$', text, re.M), "the chart gives arguments, and no command"
    for name, container in containers(objects_of(render("minimal"))):
        writable = {mount["mountPath"] for mount in container.get("volumeMounts", [])}
        assert container["name"] == "test" or {"/data", "/tmp"} <= writable, name


@by_example
def test_no_two_containers_share_a_temporary_folder(example):
    """A container takes another's folder for one of a dead process: it sees its own processes only."""
    volumes = [
        (owner, mount["name"])
        for owner, container in containers(objects_of(render(example)))
        for mount in container.get("volumeMounts", [])
        if mount["mountPath"] == "/tmp"
    ]
    assert len(volumes) >= 4
    assert len(volumes) == len(set(volumes))


def test_a_pod_has_longer_to_end_than_its_worker_takes():
    [learner] = of_kind(set_in("minimal", "config.worker.end_within_s=45.5"), "StatefulSet")
    assert learner["spec"]["template"]["spec"]["terminationGracePeriodSeconds"] == 66


def test_a_variable_of_the_operator_replaces_the_charts():
    own = 'init.extraEnv=[{"name": "ANABRANCH_KAFKA__SASL_PASSWORD", "value": "admin"}]'
    [init] = [c for _, c in containers(set_in("production", own)) if c["name"] == "init"]
    names = [variable["name"] for variable in init["env"]]
    assert len(names) == len(set(names)), "server-side apply refuses a variable that is there twice"
    assert {"name": "ANABRANCH_KAFKA__SASL_PASSWORD", "value": "admin"} in init["env"]


def test_secrets_from_values_are_there_before_init_and_after():
    made = of_kind(set_in("minimal", 'secrets.signingKey.value="0123456789abcdef"'), "Secret")
    secrets = {o["metadata"]["name"]: o for o in made}
    assert secrets.keys() == {"anabranch-init", "anabranch-secrets"}
    assert secrets["anabranch-init"]["metadata"]["annotations"]["helm.sh/hook"] == "pre-install,pre-upgrade"
    assert secrets["anabranch-init"]["data"] == secrets["anabranch-secrets"]["data"]
