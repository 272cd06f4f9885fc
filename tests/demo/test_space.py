"""The Space: three files that say what they should, and nothing overwritten."""

import ast

import pytest
from huggingface_hub import SpaceCard

from antehoc_hf.cli import main
from antehoc_hf.demo.space import export_space


def test_a_space_of_two_models(tmp_path, capsys):
    out = tmp_path / "space"
    assert main(["demo", "--export-space", str(out), "--model", "org/antehoc-resnet50", "org/other"]) == 0
    assert "hf upload" in capsys.readouterr().out
    assert sorted(path.name for path in out.iterdir()) == ["README.md", "app.py", "requirements.txt"]
    app = ast.parse((out / "app.py").read_text())
    lists = [node for node in ast.walk(app) if isinstance(node, ast.List)]
    assert [ast.literal_eval(node) for node in lists] == [["org/antehoc-resnet50", "org/other"]]
    assert (out / "requirements.txt").read_text() == "antehoc-hf[demo]\n"
    card = SpaceCard((out / "README.md").read_text())
    settings = card.data.to_dict()
    assert settings["sdk"] == "gradio"
    assert settings["sdk_version"].startswith("6.")
    assert settings["app_file"] == "app.py"
    assert settings["models"] == ["org/antehoc-resnet50", "org/other"]
    assert settings["python_version"] == "3.11"  # text: as a number it would be 3.1 for 3.10
    assert len(settings["short_description"]) <= 60
    assert "&id" not in (out / "README.md").read_text()  # an alias of YAML's, which not every reader knows
    assert "https://huggingface.co/org/other" in card.text


def test_what_the_app_calls_is_there():
    from antehoc_hf.demo.gradio_app import launch_options
    from antehoc_hf.demo.page import build_page

    assert callable(build_page)
    assert callable(launch_options)


def test_where_the_project_comes_from(tmp_path):
    export_space(tmp_path, ["org/name"], package="antehoc-hf[demo] @ git+https://example.org/project")
    assert "git+https://example.org/project" in (tmp_path / "requirements.txt").read_text()


def test_nothing_is_overwritten_silently(tmp_path):
    export_space(tmp_path, ["org/name"])
    export_space(tmp_path, ["org/name"])  # the same again changes nothing
    (tmp_path / "README.md").write_text("mine")
    with pytest.raises(ValueError, match=r"holds another README\.md already"):
        export_space(tmp_path, ["org/name"])
    assert (tmp_path / "README.md").read_text() == "mine"
    export_space(tmp_path, ["org/name"], overwrite=True)
    assert "sdk: gradio" in (tmp_path / "README.md").read_text()


@pytest.mark.parametrize(
    ("models", "words"),
    [
        ([], "There is no model for the Space"),
        (["name"], "lacks its namespace"),
        (["a b/c"], "cannot be the name of a model on the Hub"),
        (['org/na"me'], "cannot be the name of a model on the Hub"),
    ],
)
def test_names_the_hub_does_not_know(tmp_path, models, words):
    with pytest.raises(ValueError, match=words):
        export_space(tmp_path / "space", models)
    assert not (tmp_path / "space").exists()


def test_a_folder_is_not_on_the_hub(tmp_path, capsys):
    assert main(["demo", str(tmp_path), "--export-space", str(tmp_path / "space")]) == 2
    assert "push it with `antehoc push" in capsys.readouterr().err
    (tmp_path / "file").write_text("")
    assert main(["demo", "org/name", "--export-space", str(tmp_path / "file")]) == 2
    assert "is a file" in capsys.readouterr().err
