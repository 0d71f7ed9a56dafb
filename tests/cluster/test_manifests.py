"""cluster/manifests: each file against the schema of what reads it, and against each other.

Kubernetes' schemas come from kubernetes-validate, Docker Compose's from check-jsonschema, the one
of ``ray up`` from Ray itself. Nothing here needs a network, a cluster or a container.
"""

import json
import re
from collections.abc import Iterator
from importlib.metadata import requires, version
from importlib.resources import files
from pathlib import Path
from typing import Any

import jsonschema
import kubernetes_validate
import pytest
import ray
import yaml
from check_jsonschema.builtin_schemas import get_builtin_schema
from dockerfile_parse import DockerfileParser
from packaging.requirements import Requirement
from pydantic import ValidationError
from ray.serve.schema import ServeDeploySchema

from configs.settings import AppArgs
from deployments.app import model_settings
from tests.cluster.kuberay import RayService, WorkerGroup

ROOT = Path(__file__).parents[2]
MANIFESTS = ROOT / "cluster" / "manifests"
KUBERNETES = kubernetes_validate.latest_version()
IMAGE = f"worldstereo-cluster:{version('worldstereo-cluster')}"
PLAIN = ("storage.yaml", "secrets.yaml", "redis.yaml", "network.yaml", "weights.yaml")
SERVE = sorted((MANIFESTS / "serve").glob("*.yaml"))

# Variables in manifests that neither Ray nor this project reads, and who does.
READ_BY_OTHERS = {
    "HF_HOME": "huggingface_hub",
    **dict.fromkeys(("PGHOST", "PGPORT", "PGDATABASE", "PGUSER", "PGPASSWORD"), "libpq"),
    **dict.fromkeys(("POSTGRES_DB", "POSTGRES_USER", "POSTGRES_PASSWORD"), "the image postgres"),
    "REDIS_PASSWORD": "the command beside it",
}


def documents(name: str) -> list[dict[str, Any]]:
    return list(yaml.safe_load_all((MANIFESTS / name).read_text()))


@pytest.fixture(scope="module")
def service() -> RayService:
    (document,) = documents("rayservice.yaml")
    return RayService.model_validate(document)


@pytest.fixture(scope="module")
def compose() -> dict[str, Any]:
    (document,) = documents("docker-compose.yaml")
    return document


@pytest.fixture(scope="module")
def ray_up() -> dict[str, Any]:
    (document,) = documents("ray-up.yaml")
    return document


def templates(service: RayService) -> dict[str, dict[str, Any]]:
    cluster = service.spec.rayClusterConfig
    groups = {group.groupName: group.template for group in cluster.workerGroupSpecs}
    return {"head": cluster.headGroupSpec.template, **groups}


def group(service: RayService, name: str) -> WorkerGroup:
    (found,) = [
        group for group in service.spec.rayClusterConfig.workerGroupSpecs if group.groupName == name
    ]
    return found


def app_args(config: dict[str, Any]) -> AppArgs:
    (application,) = config["applications"]
    return AppArgs.model_validate(application["args"])


def validate_pod_template(template: dict[str, Any]) -> None:
    pod = {"apiVersion": "v1", "kind": "PodTemplate", "metadata": {"name": "x"}}
    kubernetes_validate.validate(pod | {"template": template}, KUBERNETES, strict=True)


def test_every_manifest_is_checked_here() -> None:
    checked = {*PLAIN, "rayservice.yaml", "ray-up.yaml", "docker-compose.yaml"}
    assert {path.name for path in MANIFESTS.glob("*.yaml")} == checked


@pytest.mark.parametrize("name", PLAIN)
def test_plain_kubernetes_objects_are_valid(name: str) -> None:
    for document in documents(name):
        kubernetes_validate.validate(document, KUBERNETES, strict=True)


def test_pods_of_the_service_are_valid(service: RayService) -> None:
    for template in templates(service).values():
        validate_pod_template(template)


def test_a_misspelt_field_is_seen(service: RayService) -> None:
    document = service.model_dump(exclude_none=True)
    document["spec"]["rayClusterConfig"]["headGroupSpec"]["templat"] = {}
    with pytest.raises(ValidationError, match="templat"):
        RayService.model_validate(document)
    template = json.loads(json.dumps(templates(service)["gpu"]))
    template["spec"]["containers"][0]["livenesProbe"] = {}
    with pytest.raises(kubernetes_validate.ValidationError, match="livenesProbe"):
        validate_pod_template(template)


def test_the_head_runs_nothing_and_outlives_its_tables(service: RayService) -> None:
    cluster = service.spec.rayClusterConfig
    assert cluster.headGroupSpec.rayStartParams["num-cpus"] == "0"
    assert cluster.rayVersion == ray.__version__
    assert cluster.enableInTreeAutoscaling
    assert cluster.autoscalerOptions.version == "v2"
    assert cluster.authOptions.mode == "token"
    redis, _ = documents("redis.yaml")
    (port,) = redis["spec"]["ports"]
    address = f"redis://{redis['metadata']['name']}:{port['port']}"
    assert cluster.gcsFaultToleranceOptions.redisAddress == address


def test_groups_scale_within_what_the_application_asks_for(service: RayService) -> None:
    args = app_args(yaml.safe_load(service.spec.serveConfigV2))
    scale, model = args.generator.autoscaling, model_settings(args)
    assert scale is not None
    gpu = group(service, "gpu")
    assert (gpu.replicas, gpu.minReplicas, scale.min_replicas) == (0, 0, 0)
    assert gpu.maxReplicas == scale.max_replicas
    assert group(service, "cpu").minReplicas >= args.ingress.replicas
    (container,) = gpu.template["spec"]["containers"]
    limits = container["resources"]["limits"]
    assert int(limits["nvidia.com/gpu"]) == model.worker_num_gpus
    assert int(limits["cpu"]) >= model.worker_num_cpus + args.generator.coordinator_num_cpus
    # A string of JSON in quotes, since it goes through a shell.
    resources = json.loads(json.loads(group(service, "cpu").rayStartParams["resources"]))
    assert resources == {args.service_resource: 1}
    idle_s = service.spec.rayClusterConfig.autoscalerOptions.idleTimeoutSeconds
    assert idle_s is not None
    assert idle_s > scale.downscale_delay_s


def test_a_pod_is_given_the_time_that_a_replica_gets(service: RayService) -> None:
    args = app_args(yaml.safe_load(service.spec.serveConfigV2))
    for name in ("gpu", "gpu-x8"):
        grace_s = group(service, name).template["spec"]["terminationGracePeriodSeconds"]
        assert grace_s > args.generator.graceful_shutdown_timeout_s


def test_every_pod_sees_the_data_and_has_shared_memory_and_no_rights(service: RayService) -> None:
    args = app_args(yaml.safe_load(service.spec.serveConfigV2))
    claims = {claim["metadata"]["name"]: claim["spec"] for claim in documents("storage.yaml")}
    for template in templates(service).values():
        pod = template["spec"]
        volumes = {volume["name"]: volume for volume in pod["volumes"]}
        (container,) = pod["containers"]
        mounts = {mount["mountPath"]: volumes[mount["name"]] for mount in container["volumeMounts"]}
        data = mounts[str(args.data_dir)]["persistentVolumeClaim"]["claimName"]
        assert claims[data]["accessModes"] == ["ReadWriteMany"]
        assert mounts["/dev/shm"]["emptyDir"]["medium"] == "Memory"
        values = {entry["name"]: entry.get("value") for entry in container["env"]}
        assert values["HF_HOME"] in mounts
        assert pod["securityContext"]["runAsNonRoot"]
        assert not container["securityContext"]["allowPrivilegeEscalation"]
        assert container["image"] == IMAGE
        assert {"livenessProbe", "readinessProbe"} <= set(container)


def test_secrets_are_named_where_they_are_used(service: RayService) -> None:
    kept = {item["metadata"]["name"]: set(item["stringData"]) for item in documents("secrets.yaml")}
    objects = [service.model_dump(exclude_none=True), *documents("redis.yaml")]
    used = [value for item in objects for value in values_of("secretKeyRef", item)]
    assert used
    for reference in used:
        assert reference["key"] in kept[reference["name"]]


def values_of(key: str, node: Any) -> Iterator[Any]:
    if isinstance(node, dict):
        yield from (value for name, value in node.items() if name == key)
        for value in node.values():
            yield from values_of(key, value)
    elif isinstance(node, list):
        for value in node:
            yield from values_of(key, value)


def test_nothing_but_http_comes_in(service: RayService) -> None:
    own, http = documents("network.yaml")
    http_port = yaml.safe_load(service.spec.serveConfigV2)["http_options"]["port"]
    for template in templates(service).values():
        labels = template["metadata"]["labels"]
        assert own["spec"]["podSelector"]["matchLabels"].items() <= labels.items()
        for rule in http["spec"]["podSelector"]["matchExpressions"]:
            assert labels[rule["key"]] in rule["values"]
    among_pods, operator = own["spec"]["ingress"]
    assert among_pods == {"from": [{"podSelector": own["spec"]["podSelector"]}]}
    assert [port["port"] for port in operator["ports"]] == [8265]
    (rule,) = http["spec"]["ingress"]
    assert [port["port"] for port in rule["ports"]] == [http_port]


def test_the_weights_that_are_fetched_are_those_that_are_served(service: RayService) -> None:
    (job,) = documents("weights.yaml")
    args = app_args(yaml.safe_load(service.spec.serveConfigV2))
    pod = job["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    variants = ",".join(args.variants)
    words = ["fetch-weights", "--model", args.model, "--variants", variants]
    assert container["command"] == ["worldstereo", *words]
    assert container["image"] == IMAGE
    (mount,) = container["volumeMounts"]
    (variable,) = container["env"]
    assert variable == {"name": "HF_HOME", "value": mount["mountPath"]}
    own = group(service, "gpu").template["spec"]["volumes"]
    assert pod["volumes"][0] in own


@pytest.mark.parametrize("path", [*SERVE, ROOT / "serve_config.yaml"], ids=lambda path: path.stem)
def test_a_serve_configuration_is_valid(path: Path) -> None:
    config = yaml.safe_load(path.read_text())
    ServeDeploySchema.model_validate(config)
    args = app_args(config)
    assert model_settings(args).source
    assert args.database_url in (None, "postgresql:///")


def test_kubernetes_and_ray_up_deploy_the_same(service: RayService) -> None:
    shipped = yaml.safe_load((MANIFESTS / "serve" / "autoscaled.yaml").read_text())
    assert yaml.safe_load(service.spec.serveConfigV2) == shipped


def test_ray_up_is_valid(ray_up: dict[str, Any]) -> None:
    schema = json.loads((files("ray.autoscaler") / "ray-schema.json").read_text())
    jsonschema.validate(ray_up, schema)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(ray_up | {"head_nod_type": "head"}, schema)
    types = ray_up["available_node_types"]
    assert types[ray_up["head_node_type"]]["resources"] == {"CPU": 0}
    args = app_args(yaml.safe_load((MANIFESTS / "serve" / "autoscaled.yaml").read_text()))
    scale = args.generator.autoscaling
    assert scale is not None
    assert (types["gpu"]["min_workers"], types["gpu"]["max_workers"]) == (0, scale.max_replicas)
    assert types["cpu"]["resources"] == {args.service_resource: 1}
    assert ray_up["max_workers"] >= sum(item.get("max_workers", 0) for item in types.values())
    assert ray_up["idle_timeout_minutes"] * 60 > scale.downscale_delay_s
    options = " ".join(ray_up["docker"]["run_options"])
    assert f":{args.data_dir}" in options
    assert "RAY_AUTH_MODE=token" in options


def test_compose_is_valid(compose: dict[str, Any]) -> None:
    schema = get_builtin_schema("vendor.compose-spec")
    jsonschema.validate(compose, schema)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(compose | {"servics": {}}, schema)
    for name in ("cpu", "gpu"):
        part = compose["services"][name]
        assert part["profiles"] == [name]
        assert part["image"] == IMAGE
        assert [port.split(":")[0] for port in part["ports"]] == ["127.0.0.1"]
        file = Path(part["command"][-1])
        config = yaml.safe_load((MANIFESTS / "serve" / file.name).read_text())
        mounts = {volume.split(":")[1] for volume in part["volumes"]}
        assert str(app_args(config).data_dir) in mounts
        assert (MANIFESTS / part["build"]["context"]).resolve() == ROOT
        assert (ROOT / part["build"]["dockerfile"]).is_file()
    assert compose["services"]["gpu"]["deploy"]["resources"]["reservations"]["devices"]


def test_the_dockerfile_copies_what_is_there_and_runs_as_nobody() -> None:
    parsed = DockerfileParser(str(MANIFESTS / "Dockerfile"))
    steps = [(step["instruction"], step["value"]) for step in parsed.structure]
    bases = [value.split()[0] for name, value in steps if name == "FROM"]
    assert all(re.fullmatch(r"python:3\.\d+\.\d+-slim-\w+", base) for base in bases)
    for name, value in steps:
        if name == "COPY":
            for source in value.split()[:-1]:
                assert (ROOT / source).exists(), value
                ignore = (MANIFESTS / "Dockerfile.dockerignore").read_text().splitlines()
                assert f"!{source.split('/')[0]}" in ignore
    (user,) = [value for name, value in steps if name == "USER"]
    assert user == "10001:10001"
    assert [name for name, _ in steps].index("USER") < [name for name, _ in steps].index("CMD")
    assert any(name == "HEALTHCHECK" and "/healthz" in value for name, value in steps)
    packages = {value.split()[0] for name, value in steps if name == "COPY"}
    built = re.search(r"include = \[(.+)\]", (ROOT / "pyproject.toml").read_text())
    assert built is not None
    assert {name.strip(' "*') for name in built[1].split(",")} <= packages


def test_the_image_has_the_extras_that_it_asks_for() -> None:
    asked = re.search(r"worldstereo-cluster\[(.+)\]", (MANIFESTS / "Dockerfile").read_text())
    assert asked is not None
    markers = [Requirement(text).marker for text in requires("worldstereo-cluster") or ()]
    for extra in asked[1].split(","):
        assert any(marker and marker.evaluate({"extra": extra}) for marker in markers), extra


def test_each_variable_is_read_by_somebody(
    service: RayService, compose: dict[str, Any], ray_up: dict[str, Any]
) -> None:
    objects = [service.model_dump(exclude_none=True), *documents("redis.yaml")]
    names = {
        entry["name"] for item in objects for value in values_of("env", item) for entry in value
    }
    for value in values_of("environment", compose):
        names |= set(value)
    options = " ".join(ray_up["docker"]["run_options"] + ray_up["head_start_ray_commands"])
    names |= set(re.findall(r"\b([A-Z]+_\w+)=", options)) | set(re.findall(r"--env (\w+)", options))
    text = (MANIFESTS / "Dockerfile").read_text()
    names |= set(re.findall(r"^ENV (\w+)=", text, re.M)) | set(re.findall(r" (RAY_\w+)=", text))
    assert len(names) > 10
    wanted = {name for name in names if name not in READ_BY_OTHERS}
    assert {name for name in wanted if not name.startswith("RAY_")} == set()
    assert wanted - set(known_to_ray(wanted)) == set()


def known_to_ray(names: set[str]) -> Iterator[str]:
    """Those that Ray's own sources or its core library name; RAY_x is x of its core's settings."""
    folder = Path(ray.__file__).parent
    sources = [*folder.glob("_private/**/*.py"), *folder.glob("serve/_private/*.py")]
    sources += [*folder.glob("_common/**/*.py"), *folder.glob("autoscaler/**/*.py")]
    texts = [path.read_bytes() for path in [*sources, folder / "_raylet.so"]]
    for name in names:
        core = name.removeprefix("RAY_")
        spelt = (name.encode(), core.encode() if core[0].islower() else name.encode())
        # ENABLE_RAY_CLUSTER is put together from a name without the prefix.
        if any(word in text for text in texts for word in spelt):
            yield name
