"""Threads that share a model, and copies of it and of its parts made meanwhile."""

import copy
import io
import pickle
import threading

import pytest
import torch
from torch import nn

from antehoc_hf.modeling import AnteHocForImageCaptioning, AnteHocForImageClassification, AnteHocForLandmarkDetection

WORDS = {"vocab_size": 9, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}
KINDS = {
    "classifier": (AnteHocForImageClassification, {"num_labels": 4}),
    "landmarks": (AnteHocForLandmarkDetection, {"num_landmarks": 3}),
    "captions": (AnteHocForImageCaptioning, WORDS),
}


def made(kind, map_head):
    model_class, options = KINDS[kind]
    return model_class.from_backbone("test_resnet", image_size=64, map_head=map_head, **options).eval()


TASKS = {
    f"{kind}-{map_head}": lambda kind=kind, map_head=map_head: made(kind, map_head)
    for kind in KINDS
    for map_head in ("contributions", "energy")
}


def same(first, second):
    return torch.equal(first.logits, second.logits) and torch.equal(
        first.interpretation_map, second.interpretation_map
    )


def hooks_of(model):
    return {name: (list(m._forward_hooks), list(m._forward_pre_hooks)) for name, m in model.named_modules()}


def test_several_threads_share_a_model(build_each, noise):
    """As in a web service: each gets its own map, and no hook stays."""
    model = build_each()
    images = [noise(1, 64, seed=seed) for seed in range(4)]
    before = hooks_of(model)
    with torch.no_grad():
        expected = [model(pixels) for pixels in images]
    wrong = []

    def serve(index):
        try:
            with torch.no_grad():
                wrong.extend(index for _ in range(15) if not same(model(images[index]), expected[index]))
        except Exception as error:
            wrong.append(error)

    threads = [threading.Thread(target=serve, args=(index,)) for index in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
    assert hooks_of(model) == before


@pytest.mark.parametrize("backbone", ["test_resnet", "test_vit"])
def test_copies_and_pickles_give_the_same(build_each, noise, backbone):
    model, pixels = build_each(backbone, awake=True), noise(1, 64)
    expected = model(pixels)
    assert same(copy.deepcopy(model)(pixels), expected)
    assert same(pickle.loads(pickle.dumps(model))(pixels), expected)
    buffer = io.BytesIO()
    torch.save(model, buffer)
    buffer.seek(0)
    assert same(torch.load(buffer, weights_only=False)(pixels), expected)


def test_a_loaded_model_holds_its_weights_once(build_each, noise, tmp_path):
    """What loading built on the way must not stay in memory, nor travel with a pickle."""
    model = build_each("test_maxvit")
    model.save_pretrained(tmp_path)
    loaded = type(model).from_pretrained(tmp_path)
    assert len(pickle.dumps(loaded)) < 1.1 * len(pickle.dumps(model))


@pytest.mark.parametrize("kind", KINDS)
def test_a_model_made_or_loaded_in_inference_mode_learns_outside_of_it(noise, tmp_path, kind):
    """As a service may load one at its first request."""
    with torch.inference_mode():
        model = made(kind, "contributions")
        model.save_pretrained(tmp_path)
        loaded = type(model).from_pretrained(tmp_path)
    for each in (model, loaded):
        each.prediction(each(noise(1, 64))).sum().backward()
        assert next(each.backbone.parameters()).grad is not None


def pickled(module):
    return pickle.loads(pickle.dumps(module))


def saved(module):
    buffer = io.BytesIO()
    torch.save(module, buffer)
    buffer.seek(0)
    return torch.load(buffer, weights_only=False)


def copies_while_it_runs(run, make, threads=1, count=12):
    """What `make` gives while other threads run the model; all their errors are raised."""
    over, problems = threading.Event(), []

    def serve():
        while not over.is_set():
            try:
                run()
            except Exception as error:
                problems.append(error)
                return

    running = [threading.Thread(target=serve) for _ in range(threads)]
    for thread in running:
        thread.start()
    try:
        copies = [make() for _ in range(count)]
    finally:
        over.set()
        for thread in running:
            thread.join()
    assert problems == []
    return copies


@pytest.mark.parametrize("copied", [copy.deepcopy, pickled, saved, copy.copy])
def test_copies_made_while_another_thread_runs_the_model(build_each, noise, copied):
    model, pixels = build_each(awake=True), noise(1, 64)
    with torch.no_grad():
        expected = model(pixels)
    before = hooks_of(model)
    for other in copies_while_it_runs(lambda: model(pixels), lambda: copied(model)):
        if copied is copy.copy:
            assert other.backbone is model.backbone
            continue
        assert hooks_of(other) == before
        assert other.backbone.fc.weight is not model.backbone.fc.weight
        with torch.no_grad():
            assert same(other(pixels), expected)


@pytest.mark.parametrize("copied", [copy.deepcopy, pickled, saved])
@pytest.mark.parametrize("task", TASKS)
def test_parts_copied_while_other_threads_run_the_model(task, noise, copied):
    """The backbone alone, a layer of it, and its layers in a container of the user's."""
    model, pixels = TASKS[task](), noise(1, 64)
    taps = [model.backbone.get_submodule(point["module"]) for point in model.config.tap_points]
    parts = (model.backbone, taps[-1], nn.ModuleList(taps))
    before = [hooks_of(part) for part in parts]
    for others in copies_while_it_runs(lambda: model(pixels), lambda: copied(parts), threads=3, count=5):
        assert [hooks_of(other) for other in others] == before
        for other, part in zip(others, parts, strict=True):
            assert all(torch.equal(one, two) for one, two in zip(other.parameters(), part.parameters(), strict=True))
        assert torch.equal(others[0](pixels), model.backbone(pixels))


def test_a_pickled_backbone_is_timms_alone(build, noise):
    """It is read where this project is not installed."""
    model, pickles = build(), []
    handle = model.backbone.get_submodule(model.config.tap_points[-1]["module"]).register_forward_hook(
        lambda module, inputs, output: pickles.append(pickle.dumps(without(handle, model.backbone)))
    )
    model(noise(1, 64))
    assert b"antehoc" not in pickles[0]
    assert b"modeling" not in pickles[0]


def without(handle, module):
    handle.remove()
    return module


def test_a_copy_keeps_the_users_hooks_and_a_shallow_one_the_modules(build):
    model = build()
    model.backbone.layer1.register_forward_hook(print)
    assert list(copy.deepcopy(model).backbone.layer1._forward_hooks.values()) == [print]
    assert copy.copy(model).backbone is model.backbone
