"""Image and label columns are found by themselves; what isn't clear is asked about in one sentence."""

from pathlib import Path
from typing import Any

import datasets
import pytest
import torch
from datasets import ClassLabel, Features, List, Value
from PIL import Image

from antehoc_hf.training.data import load_image_data
from antehoc_hf.training.data.columns import find_image_column, find_label_column
from antehoc_hf.training.data.errors import DataError, LabelError
from antehoc_hf.training.data.labels import check_labels, read_label_space

IMAGE = datasets.Image()
PETS = ClassLabel(names=["cat", "dog"])
INT, FLOAT, TEXT = Value("int64"), Value("float32"), Value("string")


def table(feature: Any, values: list[Any]) -> datasets.Dataset:
    return datasets.Dataset.from_dict({"label": values}, features=Features({"label": feature}))


@pytest.mark.parametrize(
    ("cells", "classes", "labels"),
    [
        (["01", "02", "01", "10"], ["01", "02", "10"], [0, 1, 0, 2]),
        (["01", "1", "01", "1"], ["01", "1"], [0, 1, 0, 1]),
        (["1", "2", "", "1"], ["1", "2"], [0, 1, None, 0]),
        (["1", "2", "3", "1"], ["1", "2", "3"], [0, 1, 2, 0]),
        (["01", "", "2", "01"], ["01", "2"], [0, None, 1, 0]),
        (["a 1", "2", "a 1", ""], ["2", "a 1"], [1, 0, 1, None]),
        (["NA", "cat", "NA", ""], ["NA", "cat"], [0, 1, 0, None]),
        (["null", "None", "nan", "N/A"], ["N/A", "None", "nan", "null"], [3, 1, 2, 0]),
        (["None", "1", "x", "1"], ["1", "None", "x"], [1, 0, 2, 0]),
        (["1", "2", "NA", "1"], ["1", "2"], [0, 1, None, 0]),
        (
            ["1234567890123456789", "1234567890123456788"] * 2,
            ["1234567890123456788", "1234567890123456789"],
            [1, 0] * 2,
        ),
    ],
)
@pytest.mark.parametrize("file", ["pets.csv", "pets.tsv", "metadata.csv"])
def test_numbers_in_csv_files_that_are_names(
    tmp_path: Path, file: str, cells: list[str], classes: list[str], labels: list[int | None]
) -> None:
    """The text 01 is not 1, and an empty cell makes no regression of whole numbers."""
    for number in range(4):
        Image.new("RGB", (8, 8), (number, 0, 0)).save(tmp_path / f"{number}.png")
    delimiter = "\t" if file.endswith("tsv") else ","
    rows = [f"{number}.png{delimiter}{cell}" for number, cell in enumerate(cells)]
    path, metadata = tmp_path / file, file == "metadata.csv"
    path.write_text("\n".join([f"{'file_name' if metadata else 'image'}{delimiter}label", *rows]) + "\n")
    data = load_image_data(str(tmp_path if metadata else path), on_missing_label="skip", validation_fraction=0)
    assert (data.targets.names, data.targets.problem_type) == (classes, "single_label_classification")
    assert [data.targets.encode(row["label"]) for row in data.train] == [
        label for label in labels if label is not None
    ]


@pytest.mark.parametrize(
    ("features", "expected"),
    [
        ({"img": IMAGE, "label": PETS}, "img"),
        ({"scan": IMAGE, "label": PETS}, "scan"),
        ({"mask": IMAGE, "image": IMAGE, "label": PETS}, "image"),
        ({"image_file_path": TEXT, "image": IMAGE}, "image"),
        ({"jpg": IMAGE, "cls": INT, "__key__": TEXT}, "jpg"),
        ({"Image": Value("binary"), "label": PETS}, "Image"),
        ({"file_name": TEXT, "label": PETS}, "file_name"),
        ({"image": {"bytes": Value("binary"), "path": TEXT}, "label": PETS}, "image"),
    ],
)
def test_image_column_is_found(features: dict[str, Any], expected: str) -> None:
    assert find_image_column(Features(features)) == expected


@pytest.mark.parametrize(
    ("features", "expected"),
    [
        ({"image": IMAGE, "label": INT}, "label"),
        ({"image": IMAGE, "labels": PETS, "path": TEXT}, "labels"),
        ({"image": IMAGE, "breed": PETS, "id": INT}, "breed"),
        ({"image": IMAGE, "subject": PETS, "label": TEXT}, "label"),
        ({"image": IMAGE, "category": TEXT, "id": INT}, "category"),
        ({"jpg": IMAGE, "cls": INT, "__key__": TEXT}, "cls"),
        ({"image": IMAGE, "Label": List(PETS)}, "Label"),
        ({"image": IMAGE, "label": IMAGE, "target": FLOAT}, "target"),
    ],
)
def test_label_column_is_found(features: dict[str, Any], expected: str) -> None:
    assert find_label_column(Features(features), find_image_column(Features(features))) == expected


def test_ambiguous_columns_are_named() -> None:
    features = Features({"img": IMAGE, "fine_label": PETS, "coarse_label": PETS, "id": INT})
    with pytest.raises(DataError) as caught:
        find_label_column(features, "img", source="cifar100")
    assert str(caught.value) == (
        "Several columns of cifar100 may be the label: 'fine_label', 'coarse_label'; say which with label_column "
        "(columns: img, fine_label, coarse_label, id)."
    )
    assert find_label_column(features, "img", "coarse_label") == "coarse_label"
    with pytest.raises(DataError, match="may be the image: 'left', 'right'; say which with image_column"):
        find_image_column(Features({"left": IMAGE, "right": IMAGE}))


def test_missing_columns_name_those_there_are() -> None:
    features = Features({"image": IMAGE, "keypoints": List(List(FLOAT)), "subject": INT})
    with pytest.raises(DataError, match=r"looks like the label.*label_column \(columns: image, keypoints, subject\)"):
        find_label_column(features, "image")
    with pytest.raises(DataError, match=r"looks like the image.*image_column \(columns: label\)"):
        find_image_column(Features({"label": INT}))
    with pytest.raises(DataError, match=r"image_column='picture' is not a column .*image, keypoints, subject"):
        find_image_column(features, "picture")


def test_class_labels() -> None:
    labels = read_label_space(table(PETS, [1, 0, 1]), "label")
    assert (labels.names, labels.problem_type) == (["cat", "dog"], "single_label_classification")
    batch = labels.tensor([1, 0])
    assert batch.tolist() == [1, 0]
    assert batch.dtype == torch.int64


def test_integers_and_strings_become_classes_in_sorted_order() -> None:
    labels = read_label_space(table(INT, [10, 2, 10]), "label")
    assert labels.names == ["2", "10"]
    assert labels.tensor([10, 2]).tolist() == [1, 0]
    labels = read_label_space(table(TEXT, ["dog", "cat", "dog"]), "label")
    assert labels.names == ["cat", "dog"]
    assert labels.tensor(["dog"]).tolist() == [1]
    assert read_label_space(table(Value("bool"), [True, False]), "label").names == ["False", "True"]


def test_floats_are_regression() -> None:
    labels = read_label_space(table(FLOAT, [0.5, 2.0]), "label")
    assert (labels.names, labels.problem_type) == (["label"], "regression")
    batch = labels.tensor([0.5, 2.0])
    assert batch.tolist() == [0.5, 2.0]
    assert batch.dtype == torch.float32


def test_integers_can_be_declared_regression() -> None:
    labels = read_label_space(table(INT, [30, 41]), "label", problem_type="regression")
    assert labels.problem_type == "regression"
    assert labels.tensor([41]).tolist() == [41.0]


def test_float_lists_are_vector_regression() -> None:
    labels = read_label_space(table(List(FLOAT), [[0.5, 2.0], [1.0, 3.0]]), "label")
    assert (labels.problem_type, labels.names) == ("regression", ["label_0", "label_1"])
    assert labels.tensor([[0.5, 2.0]]).tolist() == [[0.5, 2.0]]


@pytest.mark.parametrize(
    ("feature", "values", "names", "third"),
    [
        (List(PETS), [[0, 1], [], [1]], ["cat", "dog"], [0.0, 1.0]),
        (List(INT), [[0, 7], [3], [7]], ["0", "3", "7"], [0.0, 0.0, 1.0]),
        (List(TEXT), [["sea", "sky"], [], ["sky"]], ["sea", "sky"], [0.0, 1.0]),
        (List(INT), [[0, 1, 1], [0, 0, 0], [1, 0, 0]], ["0", "1", "2"], [1.0, 0.0, 0.0]),
        (List(FLOAT), [[0, 1], [1, 1], [1, 0]], ["0", "1"], [1.0, 0.0]),
        (List(INT), [[0], [1], [1]], ["0", "1"], [0.0, 1.0]),
    ],
)
def test_lists_are_multi_label(feature: Any, values: list[Any], names: list[str], third: list[float]) -> None:
    data = table(feature, values)
    labels = read_label_space(data, "label")
    assert (labels.names, labels.problem_type) == (names, "multi_label_classification")
    batch = labels.tensor([values[2]])
    assert batch.tolist() == [third]
    assert batch.dtype == torch.float32
    check_labels(data, labels, "train")


def test_label_outside_the_classes_names_row_and_value() -> None:
    labels = read_label_space(table(INT, [0, 1]), "label")
    with pytest.raises(LabelError) as caught:
        check_labels(table(INT, [0, 1, 7]), labels, "test")
    assert str(caught.value) == (
        "Row 2 of split 'test', column 'label': label 7 is not one of the 2 classes (0, 1): correct or remove it."
    )


@pytest.mark.parametrize(
    ("feature", "good", "bad", "message"),
    [
        (PETS, [0, 1], [0, -1], "Row 1 .*label -1 is not one of the 2 classes"),
        (TEXT, ["a", "b"], ["a", None], "Row 1 .*there is no label"),
        (FLOAT, [0.5, 1.0], [0.5, float("nan")], "Row 1 .*nan is not a finite number"),
        (List(INT), [[0, 1, 1], [0, 0, 1]], [[0, 1, 1], [0, 1]], "Row 1 .*2 values where there are 3"),
        (List(INT), [[0, 1, 1], [0, 0, 1]], [[0, 1, 2]], "Row 0 .*other values than 0 and 1"),
        (List(TEXT), [["a"], ["b"]], [["a", "c"]], "Row 0 .*'c' is not one of the 2 classes"),
        (List(FLOAT), [[0.5, 1.5]], [[0.5, float("inf")]], "Row 0 .*inf is not a finite"),
    ],
)
def test_wrong_labels_are_found_beforehand(feature: Any, good: list[Any], bad: list[Any], message: str) -> None:
    labels = read_label_space(table(feature, good), "label")
    with pytest.raises(LabelError, match=message):
        check_labels(table(feature, bad), labels, "train")


def test_given_names_order_the_classes() -> None:
    labels = read_label_space(table(PETS, [0, 1]), "label", names=["dog", "bird", "cat"])
    assert labels.names == ["dog", "bird", "cat"]
    assert labels.tensor([0, 1]).tolist() == [2, 0]
    labels = read_label_space(table(INT, [2, 0]), "label", names=["cat", "dog", "bird"])
    assert labels.tensor([2, 0]).tolist() == [2, 0]


@pytest.mark.parametrize(
    ("names", "labels", "expected", "said"),
    [
        (["1", "2", "3"], [1, 2], [0, 1], "read as names"),
        (["01", "02", "03"], [1, 2], [0, 1], "read as names"),
        (["1.0", "2.0", "3.0"], [1, 2], [0, 1], "read as names"),
        (["1", "2", "3"], [1, 2, 3], [0, 1, 2], None),  # 3 is not a position
        (["1", "2", "3"], [0, 1, 2], [0, 1, 2], "read as positions"),  # 0 is not a name
        (["0", "1", "2"], [0, 2], [0, 2], None),  # the same either way
        (["2", "0", "1"], [0, 1], [1, 2], "read as names"),
        (["cat", "dog", "bird"], [0, 2], [0, 2], None),
        (["10", "20"], [20, 10], [1, 0], None),
    ],
)
def test_numbers_are_names_before_they_are_positions(
    names: list[str], labels: list[int], expected: list[int], said: str | None, caplog: pytest.LogCaptureFixture
) -> None:
    space = read_label_space(table(INT, labels), "label", names=names)
    assert space.names == names
    assert space.tensor(labels).tolist() == expected
    assert (said in caplog.text) if said else not caplog.text


def test_a_number_that_only_another_split_has_is_known_by_its_name() -> None:
    space = read_label_space(table(INT, [1, 2]), "label", names=["1", "2", "7"])
    assert space.tensor([7]).tolist() == [2]
    with pytest.raises(LabelError, match="label 9 is not one of the 3 classes"):
        space.encode(9)


def test_names_of_a_class_label_are_names_whatever_they_are() -> None:
    space = read_label_space(table(ClassLabel(names=["0", "1"]), [0, 1]), "label", names=["1", "0", "2"])
    assert space.tensor([0, 1]).tolist() == [1, 0]


def test_minus_one_is_no_class() -> None:
    labels = read_label_space(table(INT, [-1, 3, 5]), "label")
    assert labels.names == ["3", "5"]
    with pytest.raises(LabelError, match=r"Row 0 .*label -1 is not one of the 2 classes"):
        check_labels(table(INT, [-1, 3, 5]), labels, "train")
    assert labels.unlabelled(table(INT, [-1, 3, -1])) == [0, 2]
    with pytest.raises(DataError, match=r"'1' \(-1 stands for no label\): add images of at least one more"):
        read_label_space(table(INT, [-1, 1]), "label")
    assert read_label_space(table(TEXT, ["-1", "1"]), "label").names == ["-1", "1"]


def test_one_class() -> None:
    with pytest.raises(DataError, match="There is one class only in column 'label', 'cat'"):
        read_label_space(table(TEXT, ["cat", "cat"]), "label")
    assert read_label_space(table(TEXT, ["cat"]), "label", names=["cat", "dog"]).names == ["cat", "dog"]


def test_a_class_missing_from_the_given_names_is_an_error_where_it_occurs() -> None:
    labels = read_label_space(table(PETS, [0, 1]), "label", names=["cat", "bird"])
    check_labels(table(PETS, [0, 0]), labels, "test")
    with pytest.raises(LabelError, match=r"Row 1 .*label 1 is not one of the 2 classes"):
        check_labels(table(PETS, [0, 1]), labels, "test")


def test_a_name_of_several_classes_is_asked_about_where_a_label_has_it() -> None:
    """ImageNet has two cranes, a bird and a machine."""
    names = ["crane", "cat", "crane", "dog"]
    labels = read_label_space(table(TEXT, ["dog", "cat"]), "label", names=names)
    assert labels.tensor(["dog", "cat"]).tolist() == [3, 1]
    assert read_label_space(table(INT, [2, 0]), "label", names=names).tensor([2, 0]).tolist() == [2, 0]
    with pytest.raises(LabelError, match=r"Row 1 .*label 'crane' is a name that several classes have: number"):
        check_labels(table(TEXT, ["cat", "crane"]), labels, "test")
    birds = ClassLabel(names=["cat", "crane"])
    labels = read_label_space(table(birds, [0, 1]), "label", names=names)
    assert labels.tensor([0]).tolist() == [1]
    with pytest.raises(LabelError, match="several classes"):
        labels.tensor([1])


def test_given_names_that_fit_nothing_are_refused() -> None:
    with pytest.raises(DataError, match="nothing in common"):
        read_label_space(table(PETS, [0, 1]), "label", names=["rose", "tulip"])
    with pytest.raises(DataError, match="3 names are given for labels of 2 values"):
        read_label_space(table(List(INT), [[0, 0], [1, 0]]), "label", names=["a", "b", "c"])


@pytest.mark.parametrize(
    ("feature", "values", "problem_type"),
    [
        (TEXT, ["a"], "regression"),
        (List(TEXT), [["a"]], "single_label_classification"),
        (PETS, [0], "multi_label_classification"),
        (List(FLOAT), [[0.3, 0.4]], "multi_label_classification"),
    ],
)
def test_problem_type_that_does_not_fit(feature: Any, values: list[Any], problem_type: str) -> None:
    with pytest.raises(DataError, match=f"can't be read as {problem_type}"):
        read_label_space(table(feature, values), "label", problem_type=problem_type)


def test_columns_that_hold_no_labels() -> None:
    with pytest.raises(DataError, match="too large to tell apart: write these classes as text"):
        read_label_space(table(FLOAT, [12345678901234567890.0, 12345678901234567891.0]), "label")
    with pytest.raises(DataError, match="can't be the label: it holds values of type Image"):
        read_label_space(table(IMAGE, [None]), "label")
    with pytest.raises(DataError, match="holds no label at all"):
        read_label_space(table(INT, [None, None]), "label")
    with pytest.raises(DataError, match="holds no label at all"):
        read_label_space(table(List(INT), [[], []]), "label")
    with pytest.raises(DataError, match="problem_type='ranking' is unknown"):
        read_label_space(table(INT, [1]), "label", problem_type="ranking")


def test_a_column_is_judged_by_all_of_its_rows(tmp_path: Path) -> None:
    """However late the first number with a fraction comes."""
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    rows = [f"a.png,{1.5 if row > 10_000 else row % 3}" for row in range(10_002)]
    (tmp_path / "train.csv").write_text("\n".join(["image,label", *rows]))
    data = load_image_data(str(tmp_path), validation_fraction=0)
    assert data.targets.problem_type == "regression"


@pytest.mark.parametrize("file", ["pets.csv", "metadata.csv", "folders"])
def test_classes_that_may_be_one_are_named(tmp_path: Path, file: str) -> None:
    names = ["Cat", "cat", "dog", "old dog", "olddog"]
    for name in names:
        for index in range(2):
            image = tmp_path / "pets" / name / f"{index}.png"
            image.parent.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (8, 8), (index, len(name), 0)).save(image)
    if file != "folders":
        rows = [f"{name}/{index}.png,{name}" for name in names for index in range(2)]
        (tmp_path / "pets" / file).write_text("\n".join(["file_name,label", *rows]))
    said: list[str] = []
    source = tmp_path / "pets" / file if file == "pets.csv" else tmp_path / "pets"
    load_image_data(str(source), validation_fraction=0, report=said.append)
    alike = [line for line in said if "are they one?" in line]
    assert alike == [
        "  classes 'Cat' and 'cat' differ in case or spaces only: are they one?",
        "  classes 'old dog' and 'olddog' differ in case or spaces only: are they one?",
    ]
