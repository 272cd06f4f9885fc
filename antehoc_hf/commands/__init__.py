"""The commands of the command line, one file each, with two functions: `parse` reads the options and imports nothing
heavy, `run` does what they ask for.
"""

# Each is a module of this package → what it does, and an example of it.
COMMANDS: dict[str, tuple[str, str]] = {
    "attach": (
        "put a map on a finished classifier, unchanged, from images without labels",
        "attach timm/resnet50.a1_in1k --images photos/ -o my-resnet",
    ),
    "train": (
        "train a model on a data set, by flags or a recipe, so that it predicts and shows what it looked at",
        "train --recipe cpu --dataset_name pets/ -o outputs/pets",
    ),
    "evaluate": (
        "measure a model's maps next to maps that explain nothing",
        "evaluate outputs/pets --dataset_name pets/ --explainers grad-cam",
    ),
    "benchmark": ("compute the paper's tables and figures again", "benchmark paper --table 1 2 --dataset shapes"),
    "explain": (
        "show what a model looked at in images, by several methods side by side",
        "explain photo.jpg --model outputs/pets --explainers antehoc grad-cam",
    ),
    "regions": (
        "cut out what a model looked at in a folder of images, a gallery for each class",
        "regions photos/ --model outputs/pets",
    ),
    "demo": ("open a page that shows what models look at in your images, or write it as a Space", "demo outputs/pets"),
    "push": (
        "put a trained model on the Hub, with its code and its card",
        "push outputs/pets --repo_id my-name/pets --license apache-2.0",
    ),
    "export": (
        "write a model as ONNX or as a program of torch.export, with prediction and map as outputs",
        "export outputs/pets -o pets.onnx",
    ),
}
