"""What makes a ``multi_node`` cluster grow and shrink by itself: Ray's autoscaler, with fake nodes.

Ray's own ``FakeMultiNodeProvider`` starts real raylets on this machine, as a cloud would machines.
Ray's ``AutoscalingCluster`` is not used: its start and its end stop every Ray on the machine.
"""

from __future__ import annotations

import json
import socket
from pathlib import Path
from typing import Any

HEAD = "f" * 51 + "00000"
PROVIDER = "ray.autoscaler._private.fake_multi_node.node_provider.FakeMultiNodeProvider"

# Fields that the autoscaler reads though they are empty: nothing is set up.
_LISTS = (
    "cluster_synced_files",
    "initialization_commands",
    "setup_commands",
    "head_setup_commands",
    "worker_setup_commands",
    "head_start_ray_commands",
    "worker_start_ray_commands",
)

# Of all of Ray's processes: the second autoscaler, looking every second, and who the head is.
ENVIRONMENT = {
    "RAY_FAKE_CLUSTER": "1",
    "RAY_enable_autoscaler_v2": "1",
    "RAY_CLOUD_INSTANCE_ID": HEAD,
    "RAY_OVERRIDE_NODE_ID_FOR_TESTING": HEAD,
    "RAY_NODE_TYPE_NAME": "ray.head.default",
    "AUTOSCALER_UPDATE_INTERVAL_S": "1",
}


def autoscaled_head(
    folder: Path, node_types: dict[str, dict[str, Any]], *, idle_timeout_s: float
) -> dict[str, Any]:
    """Options of ``multi_node`` for a head that starts and ends nodes of these types.

    Args:
        folder: where the autoscaler's configuration is written.
        node_types: ``available_node_types`` by name: resources, min_workers, max_workers.
        idle_timeout_s: a node that nothing uses for this long ends.
    """
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    head_type = {"resources": {"CPU": 0}, "node_config": {}, "max_workers": 0}
    workers = {name: {"node_config": {}, **node_type} for name, node_type in node_types.items()}
    config = {
        "cluster_name": "fake",
        "max_workers": sum(node_type["max_workers"] for node_type in workers.values()),
        "upscaling_speed": 1.0,
        "idle_timeout_minutes": idle_timeout_s / 60,
        "provider": {
            "type": "external",
            "use_node_id_as_ip": True,
            "disable_node_updaters": True,
            "disable_launch_config_check": True,
            "module": PROVIDER,
            "head_node_id": HEAD,
            "launch_multiple": True,
            "gcs_address": f"127.0.0.1:{port}",
        },
        "available_node_types": {"ray.head.default": head_type, **workers},
        "head_node_type": "ray.head.default",
        "auth": {},
        "file_mounts": {},
        **{name: [] for name in _LISTS},
    }
    file = folder / "autoscaler.yaml"
    file.write_text(json.dumps(config))
    return {
        "environment": ENVIRONMENT,
        "num_cpus": 0,
        "gcs_server_port": port,
        "autoscaling_config": str(file),
    }
