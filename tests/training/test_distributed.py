"""Two processes train as one does: same gradients, same log, and all processes hold the same numbers."""

import json
import multiprocessing
import os
from pathlib import Path

import pytest
import torch
from accelerate.state import AcceleratorState
from helpers import free_port, run_in_two_processes

PLAIN = {
    "optim": "sgd",
    "max_grad_norm": 0.0,
    "interpretation_max_grad_norm": 0.0,
    "max_steps": 2,
    "interpretation_learning_rate": 0.1,
}
CASES = {
    "plain": {},
    "accumulation": {"gradient_accumulation_steps": 2},
    "clipping": {"max_grad_norm": 0.1, "interpretation_max_grad_norm": 1e-6},
    "checkpointing": {"activation_checkpointing": True, "gradient_accumulation_steps": 2},
    "interval": {"interpretation_interval": 2, "interpretation_batch_norm": "batch", "target_eval": True},
    "joint": {"joint_weight": 10.0, "gradient_accumulation_steps": 2},
    "sequential": {"update_order": "sequential", "gradient_accumulation_steps": 2},
    "bf16": {"bf16": True},
}
FAST = ("accumulation", "joint")


def launch(tiny, folder, specs):
    """Runs the specs in two processes, one after the other."""
    path = folder / "specs.json"
    path.write_text(json.dumps(specs))
    run_in_two_processes(tiny, path)
    return [torch.load(spec["dump"]) for spec in specs]


def fork(tiny, folder, specs):
    """The same in two forks of this process, which need not import everything again."""
    path = folder / "specs.json"
    path.write_text(json.dumps(specs))
    port = free_port()

    def run(rank):
        places = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": 2, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
        os.environ.update({name: str(value) for name, value in places.items()}, ACCELERATE_USE_CPU="true")
        AcceleratorState._reset_state(reset_partial_state=True)
        tiny.main(str(path))

    processes = [multiprocessing.get_context("fork").Process(target=run, args=(rank,)) for rank in (0, 1)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(timeout=120)
    assert [process.exitcode for process in processes] == [0, 0]
    return [torch.load(spec["dump"]) for spec in specs]


def make_spec(folder, name, options, batch_size, processes=None, **more):
    return {
        "model": {"backbone": "test_nfnet"},  # no batch norm: its statistics are each process's own
        "awake": True,
        "data": {"length": 32},
        "args": {
            **PLAIN,
            "output_dir": str(folder / f"{name}-{batch_size}"),
            "per_device_train_batch_size": batch_size,
            **options,
        },
        "dump": str(folder / f"{name}-{batch_size}.pt"),
        **({"processes": processes} if processes else {}),
        **more,
    }


def in_one_process(tiny, folder, name, options):
    spec = make_spec(folder, f"{name}-single", options, batch_size=8)
    tiny.run(spec)
    return torch.load(spec["dump"])


def assert_same_training(two, one, relative=1e-5, absolute=1e-6):
    assert len(two["gradients"]) == len(one["gradients"]) > 0
    for both, single in zip(two["gradients"], one["gradients"], strict=True):
        assert both.keys() == single.keys()
        for of_weights in (True, False):
            names = [name for name in single if name.startswith("map_head") is of_weights]
            error = max(((both[name] - single[name]).abs().max().item() for name in names), default=0.0)
            scale = max((single[name].abs().max().item() for name in names), default=1.0)
            assert error <= min(relative * scale, absolute) + 1e-12, (of_weights, error, scale)
            assert scale > 0
    for name in two["state"]:
        assert torch.allclose(two["state"][name], one["state"][name], atol=absolute), name
    for row, expected in zip(two["log"][:-1], one["log"][:-1], strict=True):
        for name in ("loss", "grad_norm", "interpretation_loss", "map_mean", "degenerate_share"):
            if name in expected:
                assert row[name] == pytest.approx(expected[name], rel=max(1e-4, 10 * relative)), name


def check_cases(tiny, folder, names, launch):
    specs = [make_spec(folder, name, CASES[name], batch_size=4, processes=2) for name in names]
    for name, two in zip(names, launch(tiny, folder, specs), strict=True):
        assert two["processes"] == 2
        assert two["wrapper"] == "DistributedDataParallel"
        assert two["agree"], name
        one = in_one_process(tiny, folder, name, CASES[name])
        # In bf16 two nearly equal predictions differ mostly by rounding, and their difference is the second loss.
        loose = {"relative": 0.3, "absolute": 0.05} if name == "bf16" else {}
        assert_same_training(two, one, **loose)


def test_two_processes_train_as_one(tiny, tmp_path):
    check_cases(tiny, tmp_path, FAST, fork)


@pytest.mark.slow
def test_two_processes_train_as_one_with_options(tiny, tmp_path):
    check_cases(tiny, tmp_path, [name for name in CASES if name not in FAST], launch)


@pytest.mark.slow
@pytest.mark.parametrize("sharded", [False, True])
def test_class_conditional_maps_train_in_two_processes(tiny, tmp_path, sharded):
    """Each process draws coalitions of its own; backbone and head, which know of none, train as in one process."""
    options = {"gradient_accumulation_steps": 2}
    fsdp = {"fsdp": True, "fsdp_config": {"version": 2}, "accelerator_config": {"use_configured_state": True}}
    spec = {"model": {"backbone": "test_nfnet", "map_head": "contributions"}}
    more = {**spec, "shard_on_cpu": True} if sharded else spec
    name = "contributions"
    args = {**options, **fsdp} if sharded else options
    (two,) = launch(tiny, tmp_path, [{**make_spec(tmp_path, name, args, 4, processes=2), **more}])
    assert two["agree"]
    single = {**make_spec(tmp_path, f"{name}-single", options, 8), **spec}
    tiny.run(single)
    one = torch.load(single["dump"])
    for key, value in one["state"].items():
        if key.startswith("map_head"):
            assert torch.isfinite(two["state"][key]).all()
        else:
            assert torch.allclose(two["state"][key], value, atol=1e-6), key
    learned = [step["map_head.entry.weight"].abs().max() for step in two["gradients"]]
    assert all(size > 0 for size in learned)


@pytest.mark.slow
@pytest.mark.parametrize("blocks", [None, ["NormFreeBlock"]], ids=["whole", "by block"])
def test_sharded_processes_train_as_one(tiny, tmp_path, blocks):
    """FSDP2 through Accelerate and the stock Trainer's own preparation."""
    options = {"gradient_accumulation_steps": 2, "max_grad_norm": 0.1, "interpretation_max_grad_norm": 1e-6}
    sharded = {
        **options,
        "fsdp": True,
        "fsdp_config": {"version": 2, **({"transformer_layer_cls_to_wrap": blocks} if blocks else {})},
        "accelerator_config": {"use_configured_state": True},
    }
    (two,) = launch(tiny, tmp_path, [make_spec(tmp_path, "fsdp", sharded, 4, processes=2, shard_on_cpu=True)])
    assert two["wrapper"] == "FSDPAnteHocForImageClassification"
    assert_same_training(two, in_one_process(tiny, tmp_path, "fsdp", options))


LOAD = """
from transformers import AutoModelForImageClassification
model = AutoModelForImageClassification.from_pretrained(folder, trust_remote_code=True)
with torch.no_grad():
    torch.save(model(torch.load(pixels)).logits, output)
tell(type(model).__module__)
"""


@pytest.mark.slow
def test_a_sharded_model_is_saved_with_its_own_code(tiny, tmp_path, stranger):
    """It loads in a process where the package cannot be imported, and gives what its weights give here."""
    saving = {
        "fsdp": True,
        "fsdp_config": {"version": 2, "state_dict_type": "FULL_STATE_DICT"},
        "accelerator_config": {"use_configured_state": True},
    }
    folder = tmp_path / "model"
    spec = make_spec(tmp_path, "fsdp", saving, 4, processes=2, shard_on_cpu=True, save=str(folder))
    (two,) = launch(tiny, tmp_path, [spec])
    assert two["wrapper"] == "FSDPAnteHocForImageClassification"
    assert json.loads((folder / "config.json").read_text())["architectures"] == ["AnteHocForImageClassification"]
    pixels = torch.randn(2, 3, tiny.SIZE, tiny.SIZE, generator=torch.Generator().manual_seed(0))
    torch.save(pixels, tmp_path / "pixels.pt")
    done = stranger.run(LOAD, folder=str(folder), pixels=str(tmp_path / "pixels.pt"), output=str(tmp_path / "out.pt"))
    assert done.error is None, done.error[2]
    assert done.answer.startswith("transformers_modules")
    trained = tiny.build_model("test_nfnet").eval()
    trained.load_state_dict(two["state"])
    with torch.no_grad():
        assert torch.allclose(torch.load(tmp_path / "out.pt"), trained(pixels).logits, atol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("sharded", [False, True], ids=["ddp", "fsdp2"])
def test_two_processes_resume_to_the_same_end(tiny, tmp_path, sharded):
    options = {"save_strategy": "steps", "save_steps": 1, "max_steps": 4, "optim": "adamw_torch"}
    more = {"data": {"length": 22, "augment": True}}
    if sharded:
        options |= {"fsdp": True, "fsdp_config": {"version": 2}, "accelerator_config": {"use_configured_state": True}}
        more |= {"shard_on_cpu": True}
    straight = make_spec(tmp_path, "run", options, 4, processes=2, **more)
    resumed = {**straight, "resume": str(Path(straight["args"]["output_dir"]) / "checkpoint-2")}
    resumed["dump"] = str(tmp_path / "resumed.pt")
    ends = [result["state"] for result in launch(tiny, tmp_path, [straight, resumed])]
    for name, value in ends[0].items():
        assert torch.equal(value, ends[1][name]), name


@pytest.mark.slow
def test_sharding_on_a_cpu_is_refused(tiny, tmp_path):
    """Accelerate would take DDP without a word."""
    spec = make_spec(tmp_path, "fsdp", {"fsdp": True, "fsdp_config": {"version": 2}}, 4, processes=2)
    with pytest.raises(AssertionError, match="fsdp is set, but Accelerate shards on GPUs"):
        launch(tiny, tmp_path, [spec])
