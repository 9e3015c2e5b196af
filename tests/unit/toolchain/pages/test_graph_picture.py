"""The picture of a graph: engines, operators in PyTorch and the tensors between them, for artifacts of real builds."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner

from tests.conftest import ROOT
from tests.unit.handmade import Handmade, engine_info, placeholder_node
from toolchain import open_artifact
from toolchain.cli.main import cli
from toolchain.pages.graph_picture import _size, graph_picture
from toolchain.report.graph_layout import drawing
from toolchain.report.page import Box, Edge, Graph

BUILT = ROOT / "tests" / "compatibility" / "schema1"


def picture(name: str, *sizes: str) -> Graph:
    with open_artifact(BUILT / name) as artifact:
        return graph_picture(artifact, sizes)


@pytest.mark.parametrize("name", ["mixed.pt2", "foreign.pt2", "dynamic.pt2"])
def test_what_leads_to_a_box_stands_before_it(name: str) -> None:
    graph = picture(name)
    order = [box.key for box in graph.boxes]
    assert order[0] == "inputs" and order[-1] == "outputs"
    assert all(order.index(edge.source) < order.index(edge.target) for edge in graph.edges)


def test_engines_and_operators_in_pytorch_with_what_goes_between_them() -> None:
    graph = picture("mixed.pt2")
    engines = [box for box in graph.boxes if box.kind == "engine"]
    (torch,) = [box for box in graph.boxes if box.kind == "torch"]
    assert [box.title for box in engines] == ["_run_on_acc_0_engine", "_run_on_acc_2_engine"]
    assert engines[0].lines[1] == "2 in, 1 out"
    assert list(torch.lines) == ["aten.cumsum.default", "aten.mul.Tensor"]
    between = {(edge.source, edge.target): list(edge.lines) for edge in graph.edges}
    assert between["inputs", "engine 0"] == ["x  float32 [3, 4]", "shift  float32 [3, 4]"]
    assert between[torch.key, "engine 1"] == ["float32 [3, 4]"]
    assert between["engine 1", "outputs"] == ["float32 [3, 2]"]
    assert "2 operators that stay in PyTorch" in graph.summary


def test_ranges_and_guards_stand_with_the_inputs() -> None:
    graph = picture("dynamic.pt2", "x.0: 1 to 8, a multiple of 2")
    assert list(graph.boxes[0].lines) == ["x  float32 [s77=1..8, 8]", "checked: x.0: 1 to 8, a multiple of 2"]
    assert "2 optimization profiles" in graph.boxes[1].lines


def test_a_size_is_written_as_people_write_it() -> None:
    symbol = "Symbol('s0', positive=True, integer=True)"
    for text, words in {
        f"Mul(Integer(2), {symbol})": "2*s0",
        f"Add(Integer(1), Mul(Integer(2), {symbol}))": "1 + (2*s0)",
        f"FloorDiv({symbol}, Integer(8))": "s0//8",
        symbol: "s0",
        "Mul(": "\u2026",
        "x" * 20_000: "\u2026",
    }.items():
        assert _size({"as_expr": {"expr_str": text}}) == words


def test_boxes_stand_apart_and_lines_lead_from_one_to_the_next() -> None:
    boxes = [Box(str(index), "engine", f"engine {index}", ["a line"] * index) for index in range(6)]
    pairs = [(0, 1), (0, 2), (1, 3), (2, 3), (3, 4), (0, 5), (4, 5)]
    drawn = drawing(Graph("", boxes, [Edge(str(a), str(b), [f"{a} to {b}"] * 5) for a, b in pairs], ""))
    for index, one in enumerate(drawn.boxes):
        assert one.x >= 0 and one.x + one.width <= drawn.width and one.y + one.height <= drawn.height
        for other in drawn.boxes[index + 1 :]:
            apart = one.y + one.height < other.y or other.y + other.height < one.y
            assert apart or one.x + one.width < other.x or other.x + other.width < one.x
    assert all(len(line.texts) == 4 and line.texts[-1][2] == "and 2 more" for line in drawn.lines)
    heights = [y for line in drawn.lines for _, y, _ in line.texts]
    assert len(heights) == len(set(heights))  # no text stands on another


def test_a_chain_fits_a_narrow_window() -> None:
    name = "an_engine_whose_name_is_longer_than_what_fits_in_a_box_of_the_picture"
    boxes = [
        Box("a", "ends", "Inputs", ["x  float32 [s77=1..8, 3, 224, 224], and more"]),
        Box("b", "engine", name),
    ]
    assert drawing(Graph("", boxes, [Edge("a", "b", ["float32 [s77, 3, 224, 224]"])], "")).width <= 328


def test_inspect_writes_a_page_with_the_picture(tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    result = CliRunner().invoke(cli, ["inspect", str(BUILT / "mixed.pt2"), "--html", str(page)])
    html = page.read_text("utf-8")
    assert result.exit_code == 0 and "<svg" in html
    for words in ("PyTorch: 2 operators", "aten.cumsum.default", "float32 [3, 4]", "trtcross check"):
        assert words in html


def test_check_writes_a_page_that_says_what_is_not_met_and_how(tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    result = CliRunner().invoke(cli, ["check", str(BUILT / "mixed.pt2"), "--html", str(page)])
    html = page.read_text("utf-8")
    assert result.exit_code in (0, 3)
    assert ("It can run here" if result.exit_code == 0 else "It cannot run here") in html
    assert "What the artifact needs" in html and "PyTorch: 2 operators" in html


def test_a_graph_that_cannot_be_read_is_not_drawn_and_the_page_says_so(tmp_path: Path) -> None:
    path, page = Handmade().write(tmp_path / "a.pt2"), tmp_path / "page.html"
    assert CliRunner().invoke(cli, ["inspect", str(path), "--html", str(page)]).exit_code == 0
    assert "It is not drawn: the graph cannot be read" in page.read_text("utf-8")


@pytest.mark.parametrize(
    "wrong", ["more engines than the manifest has", "tensors without sizes", "a specification that is none"]
)
def test_an_inconsistent_graph_is_not_drawn(wrong: str, tmp_path: Path) -> None:
    made = Handmade()
    assert made.graph
    module = made.graph["graph_module"]
    module["signature"] = {"input_specs": [], "output_specs": []}
    if wrong.startswith("more"):
        made.nodes.append(placeholder_node(1, list(engine_info(1).fields("AAAA"))))
    elif wrong.startswith("tensors"):
        module["signature"]["input_specs"] = [{"user_input": {"arg": {"as_tensor": {"name": "x"}}}}]
        module["graph"]["tensor_values"] = {"x": {}}
    else:
        module["signature"]["output_specs"] = [{"user_output": {"arg": 1}}, {"user_output": None}]
    path, page = made.write(tmp_path / "a.pt2"), tmp_path / "page.html"
    assert CliRunner().invoke(cli, ["inspect", str(path), "--html", str(page)]).exit_code == 0
    assert "It is not drawn: the graph cannot be read" in page.read_text("utf-8")


@pytest.mark.parametrize("verb", ["inspect", "check"])
def test_a_page_is_of_one_artifact_and_never_takes_its_place(verb: str, tmp_path: Path) -> None:
    one, two = (Handmade().write(tmp_path / name) for name in ("a.pt2", "b.pt2"))
    run = CliRunner().invoke
    several = run(cli, [verb, str(one), str(two), "--html", str(tmp_path / "p.html")])
    assert several.exit_code == 2 and "a page is of one artifact" in several.output
    before = one.read_bytes()
    assert run(cli, [verb, str(one), "--html", str(one)]).exit_code == 2 and one.read_bytes() == before
    nowhere = run(cli, [verb, str(one), "--html", str(tmp_path / "none" / "p.html")])
    assert nowhere.exit_code == 2 and "the report cannot be written" in nowhere.output
