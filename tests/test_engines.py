"""Engines: they compute what the torch network does, and what happens when one does not work."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from skimage import data

from deconv_cli.errors import DeconvError, UsageError
from deconv_cli.network import container, device
from deconv_cli.network.activations import ACTIVATIONS
from deconv_cli.network.description import UPSAMPLINGS, Architecture, Description
from deconv_cli.network.encoder_decoder import build_network
from deconv_cli.network.engines import ENGINES
from deconv_cli.network.engines import openvino as openvino_engine
from deconv_cli.network.engines import torch as torch_engine
from deconv_cli.network.graph import check_parameters
from deconv_cli.network.weights import Weights, to_parameters
from deconv_cli.restoration import restorer as restorer_module
from deconv_cli.restoration.batch import restore_data
from deconv_cli.restoration.pages import Options
from deconv_cli.restoration.restorer import Restorer, Restorers

PYRAMID = {"widths": (4, 6, 8), "blocks": (1, 2, 1)}
REDNET = {"widths": (6,), "blocks": (5,), "layout": "rednet"}
ARCHITECTURES = [
    *(Architecture(**PYRAMID, activation=name) for name in ACTIVATIONS),
    *(Architecture(**REDNET, activation=name) for name in ("relu", "prelu", "tanh")),
    *(Architecture(**PYRAMID, upsampling=kind, skips=skips) for kind in UPSAMPLINGS for skips in (True, False)),
    *(Architecture(**PYRAMID, condition_planes=0, scale=scale) for scale in (2, 3, 4)),
    Architecture(**{**REDNET, "blocks": (4,)}, scale=2, skips=False),
    Architecture(widths=(4,), blocks=(0,)),
]


def random_weights(architecture):
    """Weights whose every parameter matters: biases and slopes that are not what they start from."""
    torch.manual_seed(0)
    network = build_network(architecture, residual_gain=0.7)
    for name, parameter in network.named_parameters():
        if parameter.ndim == 1:
            torch.nn.init.uniform_(parameter, 0.1, 0.4) if "activation" in name else torch.nn.init.normal_(parameter)
    description = Description("random", "denoise", architecture, (0.0, 75.0))
    return Weights(description, to_parameters(network.state_dict()))


def pictures(architecture, count=2, sides=(24, 40)):
    planes = architecture.channels + architecture.condition_planes
    return np.random.default_rng(0).random((count, planes, *sides), dtype=np.float32)


@pytest.mark.parametrize("engine", [name for name in ENGINES if name != "torch"])
@pytest.mark.parametrize("architecture", ARCHITECTURES, ids=str)
def test_an_engine_computes_what_torch_does(engine, architecture):
    pytest.importorskip(engine)
    weights = random_weights(architecture)
    loaded = ENGINES[engine].load(weights, "cpu", "fp32")
    for x in (pictures(architecture), pictures(architecture, 1, (32, 8))):
        expected = weights.build().residual(torch.from_numpy(x)).numpy()
        assert expected.std() > 0.01
        np.testing.assert_allclose(loaded.run(x), expected, atol=2e-5 * np.abs(expected).max())


def test_parameters_that_do_not_fit_are_refused():
    weights = random_weights(Architecture(**PYRAMID))
    architecture, parameters = weights.description.architecture, dict(weights.parameters)
    check_parameters(architecture, parameters)
    for wrong in (
        {**parameters, "head.bias": np.zeros(5, np.float32)},
        {**parameters, "extra": np.zeros(0, np.float32)},
        {name: value for name, value in parameters.items() if name != "up.1.bias"},
    ):
        with pytest.raises(ValueError, match=r"head.bias|extra|up.1.bias"):
            check_parameters(architecture, wrong)


@pytest.mark.parametrize("engine", ENGINES)
def test_every_engine_restores_alike(engine, tiny_weights):
    pytest.importorskip(engine)
    image = data.chelsea()[60:125, 100:171]
    expected = Restorer(tiny_weights, engine="torch", precision="fp32").restore(image.astype(np.float32) / 255)
    result = Restorer(tiny_weights, engine=engine, precision="fp32").restore(image.astype(np.float32) / 255, tile=32)
    assert (result.engine, result.fallback) == (engine, None)
    assert np.abs(result.pixels - expected.pixels).max() <= 1e-4 / 255
    assert np.abs(expected.pixels - image / 255).max() > 0.05


def test_threads_may_share_a_restorer(tiny_weights):
    """As the trials of auto do, beside the restoration of another picture: each gets what is its own."""
    restorer = Restorer(tiny_weights, precision="fp32", engine="openvino")
    pictures = [np.random.default_rng(seed).integers(0, 255, (96, 96), np.uint8) for seed in range(8)]
    alone = [restorer.restore(picture, noise_level=20).pixels for picture in pictures]
    with ThreadPoolExecutor(4) as pool:
        shared = list(pool.map(lambda picture: restorer.restore(picture, noise_level=20).pixels, pictures * 8))
    assert all(np.array_equal(ours, theirs) for ours, theirs in zip(shared, alone * 8, strict=True))


def test_bf16_is_as_near_to_float32_as_that_of_torch():
    image = data.chelsea()[60:124, 100:164].astype(np.float32) / 255
    full = Restorer("denoise", precision="fp32").restore(image, noise_level=15).pixels
    errors = {}
    for engine in ("openvino", "torch"):
        half = Restorer("denoise", precision="bf16", engine=engine).restore(image, noise_level=15)
        native = engine == "torch" or device.has_native_bf16()
        assert (half.engine, half.precision) == (engine, "bf16" if native else "fp32")
        errors[engine] = np.sqrt(np.square(half.pixels - full).mean())
        assert (errors[engine] > 0) == native
    assert errors["openvino"] <= 1.2 * errors["torch"] < 0.3 / 255


class Broken:
    """An engine that gives the same number everywhere, or an error."""

    def __init__(self, result):
        self.result = result

    def run(self, x):
        if isinstance(self.result, Exception):
            raise self.result
        return np.full_like(x[:, :3], self.result)


def break_engines(monkeypatch, restorer, results):
    """Replace engines, by name and number format; return a list of those that are tried from then on."""
    load, tried = restorer.runner._load, []

    def broken(kind, precision):
        key = (kind.name, precision)
        tried.append(key)
        return Broken(results[key]) if key in results else load(kind, precision)

    monkeypatch.setattr(restorer.runner, "_load", broken)
    return tried


@pytest.mark.parametrize("harm", [RuntimeError("no such instruction\nmore"), DeconvError("not installed"), np.nan])
def test_an_engine_that_does_not_work_gives_way_once(tiny_weights, monkeypatch, caplog, harm):
    image = data.chelsea()[60:100, 100:140]
    expected = Restorer(tiny_weights, precision="fp32", engine="torch").restore(image, noise_level=20).pixels
    restorer = Restorer(tiny_weights, precision="fp32")
    break_engines(monkeypatch, restorer, {("openvino", "fp32"): harm, ("onnxruntime", "fp32"): harm})
    for _ in range(2):
        result = restorer.restore(image, noise_level=20)
        assert result.engine == "torch"
        assert np.array_equal(result.pixels, expected)
    reason = "its output is not finite" if isinstance(harm, float) else str(harm).partition("\n")[0]
    assert result.fallback == f"openvino: {reason}; onnxruntime: {reason}"
    warned = [record.getMessage() for record in caplog.records]
    assert warned == [f"{name}: {reason}; going on with torch" for name in ("openvino", "onnxruntime")]


def test_an_engine_whose_own_library_fails_gives_way(tiny_weights, monkeypatch):
    onnxruntime_engine = pytest.importorskip("deconv_cli.network.engines.onnxruntime")
    image = data.chelsea()[60:100, 100:140]
    weights = Restorer(tiny_weights).weights
    with pytest.raises(RuntimeError, match="invalid dimensions"):
        ENGINES["onnxruntime"].load(weights, "cpu", "fp32").run(np.zeros((1, 1, 8, 8), np.float32))
    monkeypatch.setattr(onnxruntime_engine, "build_model", lambda _: SimpleNamespace(SerializeToString=lambda: b"bad"))
    with pytest.raises(DeconvError, match="onnxruntime cannot load the network"):
        Restorer(tiny_weights, engine="onnxruntime").restore(image, noise_level=20)
    restorer = Restorer(tiny_weights, precision="fp32")
    break_engines(monkeypatch, restorer, {("openvino", "fp32"): RuntimeError("no such instruction")})
    result = restorer.restore(image, noise_level=20)
    assert result.engine == "torch"
    assert "onnxruntime: the engine onnxruntime cannot load the network" in result.fallback


def test_onnxruntime_goes_on_with_smaller_tiles_if_memory_runs_out(tiny_weights, monkeypatch):
    errors = pytest.importorskip("onnxruntime.capi.onnxruntime_pybind11_state")
    restorer = Restorer(tiny_weights, engine="onnxruntime")
    image = data.astronaut()[:200, :200]
    expected = restorer.restore(image, noise_level=20, tile="off").pixels.astype(int)
    engine = restorer.runner._load(ENGINES["onnxruntime"], "fp32")
    session, sides = engine._session, []

    def scarce(outputs, inputs):
        sides.append(inputs["image"].shape[2])
        if sides[-1] > 200:
            raise errors.RuntimeException("Failed to allocate memory for requested buffer of size 123")
        return session.run(outputs, inputs)

    monkeypatch.setattr(engine, "_session", SimpleNamespace(run=scarce))
    result = restorer.restore(image, noise_level=20, tile="off")
    assert np.abs(result.pixels - expected).max() <= 1
    assert (result.engine, result.fallback) == ("onnxruntime", None)
    assert sides[0] > 200 >= max(sides[1:])


@pytest.mark.parametrize("native", [True, False])
def test_bfloat16_that_the_processor_lacks_is_not_claimed(tiny_weights, monkeypatch, caplog, native):
    monkeypatch.setattr(restorer_module, "has_native_bf16", lambda: native)
    restorer = Restorer(tiny_weights, precision="bf16")
    assert restorer.precision_for(np.uint8) == ("bf16" if native else "fp32")
    assert [record.getMessage() for record in caplog.records] == (
        [] if native else [f"this processor does not compute in bfloat16; {restorer.description.name} runs in float32"]
    )
    assert Restorer(tiny_weights, precision="bf16", engine="torch").precision_for(np.uint8) == "bf16"


def test_output_that_is_not_finite_is_done_again_in_float32(tiny_weights, monkeypatch, caplog):
    monkeypatch.setattr(restorer_module, "has_native_bf16", lambda: True)
    image = data.chelsea()[60:100, 100:140]
    expected = Restorer(tiny_weights, precision="fp32").restore(image, noise_level=20)
    restorer = Restorer(tiny_weights, precision="bf16")
    tried = break_engines(monkeypatch, restorer, {("openvino", "bf16"): np.inf})
    for _ in range(2):
        result = restorer.restore(image, noise_level=20, tile=16)
        assert np.abs(result.pixels.astype(int) - expected.pixels).max() <= 1
        assert (result.engine, result.precision) == ("openvino", "fp32")
        assert result.fallback == "openvino in bf16: its output is not finite"
    assert tried.count(("openvino", "bf16")) == 1
    assert [record.getMessage() for record in caplog.records] == [f"{result.fallback}; going on with fp32"]


def test_what_ran_is_told_if_neither_the_format_nor_the_engine_did(tiny_weights, monkeypatch, caplog):
    pytest.importorskip("onnxruntime")
    monkeypatch.setattr(restorer_module, "has_native_bf16", lambda: True)
    restorer = Restorer(tiny_weights, precision="bf16")
    tried = break_engines(monkeypatch, restorer, {("openvino", "bf16"): np.nan, ("openvino", "fp32"): np.nan})
    for _ in range(2):
        result = restorer.restore(data.chelsea()[60:100, 100:140], noise_level=20)
        assert (result.engine, result.precision) == ("onnxruntime", "fp32")
        for part in ("openvino in bf16: its output is not finite", "openvino: its output is not finite"):
            assert part in result.fallback
    assert tried == [("openvino", "bf16"), ("openvino", "fp32"), ("onnxruntime", "fp32"), ("onnxruntime", "fp32")]
    assert len(caplog.records) == 2


def test_all_engines_that_ran_the_pages_of_a_document_are_told(tiny_weights, monkeypatch):
    restorers, document = Restorers(str(tiny_weights), "cpu", "fp32"), io.BytesIO()
    first, *others = (Image.fromarray(data.chelsea()[60:100, left : left + 40]) for left in (100, 140, 180))
    first.save(document, "tiff", save_all=True, append_images=others)
    error = DeconvError("broke down")
    outcome = restore_data(
        document.getvalue(),
        io.BytesIO(),
        restorers,
        Options(task="denoise", noise_level=20),
        name="in",
        target="out",
        target_format="same",
        seen=lambda _: break_engines(
            monkeypatch, restorers.only, {("openvino", "fp32"): error, ("onnxruntime", "fp32"): error}
        ),
    )
    assert (outcome.pages, outcome.engine) == (3, "openvino+torch")
    assert outcome.fallback == "openvino: broke down; onnxruntime: broke down"


def test_what_no_engine_can_do_fails_and_costs_no_engine(tiny_weights, monkeypatch):
    image = data.chelsea()[60:100, 100:140]
    restorer = Restorer(tiny_weights, precision="fp32")
    break_engines(monkeypatch, restorer, {(name, "fp32"): np.nan for name in ENGINES})
    with pytest.raises(DeconvError, match="not finite; check the weights"):
        restorer.restore(image, noise_level=20)
    assert restorer.runner.fallback is None
    break_engines(monkeypatch, restorer, {(name, "fp32"): RuntimeError(f"{name} is broken") for name in ENGINES})
    with pytest.raises(DeconvError, match=r"openvino is broken; onnxruntime is broken; torch is broken"):
        restorer.restore(image, noise_level=20)


def test_an_engine_asked_for_by_name_does_not_give_way(tiny_weights, monkeypatch):
    restorer = Restorer(tiny_weights, precision="fp32", engine="openvino")
    break_engines(monkeypatch, restorer, {("openvino", "fp32"): RuntimeError("no such instruction")})
    with pytest.raises(DeconvError, match="no such instruction"):
        restorer.restore(data.chelsea()[:40, :40], noise_level=20)
    monkeypatch.setitem(sys.modules, "openvino", None)
    monkeypatch.delitem(sys.modules, openvino_engine.__name__)
    with pytest.raises(UsageError, match=r"openvino cannot be imported .*install"):
        Restorer(tiny_weights, engine="openvino")
    assert Restorer(tiny_weights).restore(data.chelsea()[:40, :40]).engine != "openvino"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"engine": "openvin"}, "did you mean 'openvino'"),
        ({"engine": "onnxruntime", "precision": "bf16"}, "onnxruntime does not run in bf16"),
        ({"engine": "openvino", "device": "cuda"}, "cuda"),
    ],
)
def test_engines_that_do_not_go_with_the_rest_are_refused(tiny_weights, options, message):
    with pytest.raises(UsageError, match=message):
        Restorer(tiny_weights, **options)


def test_the_command_tells_the_engine(run, tmp_path, tiny_weights):
    Image.fromarray(data.chelsea()[:64, :64]).save(tmp_path / "in.png")
    options = ("--weights", tiny_weights, "--noise-level", 20, "--device", "cpu", "--json")
    line = run("restore", tmp_path / "in.png", tmp_path / "a.png", *options).json_lines[0]
    assert (line["engine"], line["fallback"]) == ("openvino", None)
    line = run("restore", tmp_path / "in.png", tmp_path / "b.png", *options, "--engine", "torch").json_lines[0]
    assert (line["engine"], line["fallback"]) == ("torch", None)
    wrong = run("restore", tmp_path / "in.png", tmp_path / "c.png", *options, "--engine", "tensor")
    assert wrong.code == 2
    assert "unknown engine" in wrong.stderr
    assert not (tmp_path / "c.png").exists()


def test_restoring_imports_no_torch(tmp_path, tiny_weights):
    Image.fromarray(data.chelsea()[:64, :64]).save(tmp_path / "in.png")
    code = (
        "import sys; sys.modules['torch'] = None\n"
        "from deconv_cli.cli.app import run\n"
        "raise SystemExit(run(sys.argv[1:]))"
    )
    arguments = ["restore", tmp_path / "in.png", tmp_path / "out.png", "--noise-level", "20", "--device", "cpu"]
    for weights in (tiny_weights, "denoise"):
        command = [sys.executable, "-c", code, *map(str, arguments), "--weights", str(weights), "--overwrite"]
        done = subprocess.run(command, capture_output=True, text=True, env=os.environ, check=False)
        assert done.returncode == 0, done.stderr
        assert "torch" not in done.stderr
        assert Image.open(tmp_path / "out.png").size == (64, 64)


@pytest.mark.parametrize(
    ("version", "quota", "threads"),
    [(2, "150000 100000", 2), (2, "50000 100000", 1), (2, "max 100000", None), (1, "200000", 2), (1, "-1", None)],
)
def test_threads_keep_to_the_share_of_the_container(tmp_path, monkeypatch, version, quota, threads):
    root, place = tmp_path / "cgroup", "box/inner"
    folder = root / place if version == 2 else root / "cpu" / place
    folder.mkdir(parents=True)
    (folder / ("cpu.max" if version == 2 else "cpu.cfs_quota_us")).write_text(f"{quota}\n")
    if version == 1:
        (folder / "cpu.cfs_period_us").write_text("100000\n")
    membership = tmp_path / "membership"
    membership.write_text(f"4:cpu,cpuacct:/{place}\n" if version == 1 else f"0::/{place}\n")
    monkeypatch.setattr(container, "CGROUPS", root)
    monkeypatch.setattr(container, "MEMBERSHIP", membership)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(os.cpu_count())), raising=False)
    assert container.thread_limit() == threads
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    assert container.thread_limit() == 7


def test_torch_keeps_to_the_share_of_the_container(tiny_weights, monkeypatch):
    before = torch.get_num_threads()
    weights = Restorer(tiny_weights).weights
    try:
        for limit, own, threads in ((2, 4, 2), (None, 4, 4), (2, 1, 1)):
            torch.set_num_threads(own)
            monkeypatch.setattr(torch_engine, "thread_limit", lambda limit=limit: limit)
            ENGINES["torch"].load(weights, "cpu", "fp32")
            assert torch.get_num_threads() == threads
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize(
    ("vendor", "flags", "precision"),
    [
        ("AuthenticAMD", "avx512f avx512_bf16", "bf16"),
        ("GenuineIntel", "avx512f avx512_bf16 amx_bf16 amx_tile", "bf16"),
        ("GenuineIntel", "avx512f avx512_bf16 avx512_fp16", "fp32"),  # AMX hidden by a virtual machine
        ("AuthenticAMD", "avx2", "fp32"),
    ],
)
def test_auto_takes_bfloat16_where_it_is_the_faster(tmp_path, monkeypatch, vendor, flags, precision):
    facts = tmp_path / "cpuinfo"
    one = f"processor\t: 0\nvendor_id\t: {vendor}\nmodel name\t: Fast: 3000\nflags\t\t: fpu {flags}\n"
    facts.write_text(f"{one}\n{one}\n")
    monkeypatch.setattr(device, "PROCESSOR", facts)
    monkeypatch.setattr("platform.system", lambda: "Linux")
    assert device.choose_precision("auto", "cpu") == precision
    assert device.processor()["model name"] == "Fast: 3000"


def test_many_sizes_in_a_row_are_run_alike(monkeypatch, tiny_weights):
    monkeypatch.setattr(openvino_engine, "MOST_SHAPES", 2)
    weights = random_weights(Architecture(**PYRAMID))
    engine, network = ENGINES["openvino"].load(weights, "cpu", "fp32"), weights.build()
    for sides in ((8, 8), (8, 12), (8, 8), (16, 8), (8, 12), (20, 24), (8, 8)):
        x = pictures(weights.description.architecture, 1, sides)
        expected = network.residual(torch.from_numpy(x)).numpy()
        np.testing.assert_allclose(engine.run(x), expected, atol=2e-5 * np.abs(expected).max())
        assert len(engine._shapes) <= 2


def test_a_signal_is_survived_after_engines_have_gone(tiny_weights):
    """OpenVINO gives the thread a stack for signals, and frees it: see `deconv_cli.network.engines.openvino.core`."""
    code = (
        "import pathlib, signal, sys\n"
        "from deconv_cli.network.engines.openvino import Engine\n"
        "from deconv_cli.network.weights import load_weights\n"
        "signal.signal(signal.SIGINT, lambda *_: print('stopped'))\n"
        "weights = pathlib.Path(sys.argv[1])\n"
        "first, second = (Engine(load_weights(weights), 'cpu', 'fp32') for _ in range(2))\n"
        "del first\n"
        "del second\n"
        "signal.raise_signal(signal.SIGINT)"
    )
    command = [sys.executable, "-c", code, str(tiny_weights)]
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ, check=False)
    assert (done.returncode, done.stdout) == (0, "stopped\n"), done.stderr


@pytest.mark.parametrize("command", ["restore", "export"])
def test_nothing_is_reported_over_the_network(tmp_path, tiny_weights, command):
    """OpenVINO's package does at every import of its converter, from a forked process, which can hang."""
    Image.fromarray(data.chelsea()[:64, :64]).save(tmp_path / "in.png")
    code = (
        "import sys\n"
        "def watch(event, arguments):\n"
        "    if event in ('os.fork', 'socket.connect', 'socket.getaddrinfo'): print('seen:', event, file=sys.stderr)\n"
        "sys.addaudithook(watch)\n"
        "from deconv_cli.cli.app import run\n"
        "code = run(sys.argv[1:])\n"
        "assert 'openvino' in sys.modules\n"
        "assert 'openvino_telemetry' not in sys.modules\n"
        "raise SystemExit(code)"
    )
    arguments = {
        "restore": ["restore", tmp_path / "in.png", tmp_path / "out.png", "--weights", tiny_weights, "--device", "cpu"],
        "export": ["export", tiny_weights, "--format", "openvino", "--out", tmp_path / "model.xml"],
    }[command]
    done = subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)], capture_output=True, text=True, env=os.environ, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "seen:" not in done.stderr
