"""`shapes`: a data set whose evidence is known, generated from a seed without any download.

    from antehoc_hf.shapes import load_shapes
    data = load_shapes(image_size=64, train=4000, validation=500, test=1000, seed=0)

Each image shows one bug, anywhere, at any angle and in any colours, on one of six natural grounds (grass, sand, wood,
stone, water, fallen leaves) among three to six distractors (twigs, leaves, pebbles, berries, petals).

**What decides the class.** Three parts of the bug, each in one of three shapes: the horn (lance, fork, mace), the
wings (moth, fly, hawk) and the tail (fan, pincers, sting).

    class       horn    wings   tail
    lancefly    lance   fly     pincers
    stagmoth    fork    moth    pincers
    lancehawk   lance   hawk    sting
    macemoth    mace    moth    sting
    staghawk    fork    hawk    fan
    macefly     mace    fly     fan

- Every shape belongs to exactly two classes, so no single part is sufficient, and any two parts name the class: each
  class has the three minimal sufficient sets {horn, wings}, {horn, tail} and {wings, tail}.
- Everything else (place, size, angle, colours, light, body, head, legs, distractors; the ground, too, unless
  `background="correlated"`) is drawn independently of the class. Only shapes that are there are evidence, never the
  absence of a part: every bug has all six parts.
- `mask` holds the pixels that decide: those with any of horn, wings or tail in their colour.

**What a removal does to the label.** A removed part is not there, and what lay behind it shows instead: the true
background, distractors, other parts. Outside the removed part's mask no pixel changes.

- Without one deciding part the label is still certain: the other two name it.
- Without two, two classes remain and nothing tells them apart: the best possible accuracy is 1/2.
- Without all three (`without_deciding_parts`) nothing is left to tell: all six classes are equally likely, 1/6.
- Without body, head, legs or clutter the label does not change.

**Splits.** train, validation, test, and `test_swapped`: row i is the bug and the distractors of row i of test on
another family of background, so a pair tells what the background alone does to a prediction. With
`background="correlated"` class k stands on family k (label and background id are equal) in 95 % of the rows of train,
validation and test, and never in `test_swapped`: a model that reads the ground is right on test and wrong there. The
bugs and distractors are the same in both modes. Row i has label i mod 6: shuffle for training, as trainers do.
A split of 0 rows is left out.

**Columns** (images are PNG inside, decoded only when read; H = W = image_size):

- `image`: RGB. `label`: ClassLabel.
- `mask`: 8-bit grey, 255 on the deciding pixels, else 0.
- `part_masks`: 8-bit grey, a set of bits: bit k marks the pixels where REGIONS[k] is to be seen (horn, wings, tail,
  body, head, legs, clutter; at soft edges two regions share a pixel); 0 is bare background. `part_mask(part_masks,
  "wings")` gives one region as a boolean array.
- `without_deciding_parts`: the image without horn, wings and tail; `without_<region>` for each region asked for by
  `without=`. `render(scene, without=[...])` draws any other combination.
- `horn`, `wings`, `tail`: ClassLabels of the shapes; `attributes`: the same as nine zeros and ones (ATTRIBUTES).
- `background`: ClassLabel of the family of the ground.
- `landmarks`: (6, 2) x and y in pixels of LANDMARKS (x right, y down, the centre of the first pixel is (0, 0); left
  and right as the bug has them), each at the middle of its part LANDMARK_PARTS (of a forked horn or pincers, where
  they branch) and on a visible pixel of it; `landmarks_visible`: whether the part can be seen at all.
- `captions`: three sentences; `caption_regions`: for each word of `caption.split()` the region it names, a name for
  `part_mask`, or "" for none. The class's name means "deciding".
- `scene`: the text from which `render` draws the scene again.

The pixels depend on the options and the row's index alone. The PNG files that hold them may differ in their
compression between builds of Pillow.
"""

from antehoc_hf.shapes.dataset import load_shapes
from antehoc_hf.shapes.parts import LANDMARKS
from antehoc_hf.shapes.scene import REGIONS, part_mask, render

__all__ = ["LANDMARKS", "REGIONS", "load_shapes", "part_mask", "render"]
