"""What a run prints of its results."""

from antehoc_hf.training.runs.results import results_table


def test_a_metric_whose_name_does_not_say_it_is_explained() -> None:
    results = {
        "data": {"name": "shapes", "problem_type": None},
        "evaluated_on": "test",
        "evaluated_images": 200,
        "metrics": {"loss": 0.5, "degenerate_share": 0.25, "distinct_captions": 7},
        "verdict": {"sentence": "Words not learned: fan."},
    }
    assert results_table(results, ["the table of maps"]).splitlines() == [
        "shapes, test split, 200 images",
        "  loss: 0.5",
        "  degenerate share: 0.25 (of the maps, those that show nothing)",
        "  distinct captions: 7 (of all images)",
        "",
        "the table of maps",
        "",
        "Words not learned: fan.",
    ]
