"What a search says and draws of more labels: of images that are all right it promises nothing, and nothing beyond 100 %."
import matplotlib.pyplot as plt, numpy as np, pytest
from imgstudy.records.metrics import wilson_interval
from imgstudy.study.ladder import best_words, doubling_range
from imgstudy.study.search_picture import labels_or_training, plot_best


def searched(n, wrong=(2, 1, 0, 0), folds=0, tried=160):
    "Units of a search in which `wrong` of `n` images were wrong with 20, 40, 80 and 160 labels."
    hits = np.stack([[np.arange(n) >= w for w in wrong]]*3)
    low, high = wilson_interval(n - wrong[-1], n)
    probe = dict(kind='probe', model='m', train=tried, valid=n, seconds=9., accuracy=1 - wrong[-1]/n, low=low, high=high, loss=.1)
    if folds: probe |= dict(folds=folds, valid=8, hits='1'*n)
    labels = dict(kind='labels', model='m', seconds=1., labels=[20, 40, 80, 160], tried=tried, curve=hits.mean((0, 2)).tolist())
    return [probe, labels | dict(zip(('gain', 'gain_low', 'gain_high'), doubling_range(hits, labels['labels'])))]


def tried(name, low, loss, seconds=1., kind='tune', **more): return dict(kind=kind, model=name, accuracy=low, low=low, high=1., loss=loss, seconds=seconds) | more


@pytest.mark.parametrize('units, says', [
    ([tried('a', .8, .3)], ', the best so far'), ([tried('a', .7, .1), tried('b', .8, .3)], ', the best so far'), ([tried('a', .9, .1), tried('b', .8, .3)], ''),
    ([tried('a', .8, .3), tried('b', .8, .2)], ', the best so far, with another as accurate, by its smaller log loss'), ([tried('a', .8, .2), tried('b', .8, .3)], ''),
    ([tried('a', .8, .3, 9), tried('b', .8, .3, 2)], ', the best so far, with another as accurate, by its shorter time'),
    ([tried('a', .8, .3), tried('b', .8, .2), tried('c', .8, .1)], ', the best so far, with another as accurate, by its smaller log loss'),
    ([tried('a', .8, .3, kind='probe', train=10), tried('a', .8, .2, kind='probe', train=20)], ', the best so far'), # the same network, on more images
    ([tried('a', .8, .3), dict(kind='labels', model='a', seconds=1.)], '')])
def test_the_best_so_far_says_what_broke_a_tie(units, says): assert best_words(units) == says


@pytest.mark.parametrize('units, judge', [(searched(42, folds=5), 42), (searched(8), 8), (searched(60, (0, 0, 0, 0)), 60), (searched(100, (30, 9, 2, 0)), 100)])
def test_images_that_are_all_right_promise_no_points(units, judge):
    said = labels_or_training(units, 160)
    assert said.startswith(f'Whether more labels would help cannot be told: all {judge} images that judge are right, so they cannot show what more labels would add; ')
    assert 'points' not in said


def test_the_images_are_those_that_judged_the_curve():
    "Not those of a later probe, nor of another network."
    first, labels = searched(42)
    later = [first | dict(train=640, valid=160), first | dict(model='other', valid=7)]
    assert 'all 42 images that judge are right' in labels_or_training([first, labels, *later], 160)
    assert 'all images that judge are right' in labels_or_training([labels], 160)


def test_many_images_that_are_all_right_are_an_answer():
    said = labels_or_training(searched(2000), 160)
    assert said.startswith('More labels would hardly help: all 2,000 images that judge are right; ')


def test_labels_that_were_not_tried_come_first():
    assert labels_or_training(searched(42), 900).startswith('Of the 900 training labels that there are, 160 were tried in this time: use them first: all 42 images')


@pytest.mark.parametrize('wrong', [(9, 6, 3, 1), (20, 20, 20, 20), (1, 1, 1, 1)])
def test_with_an_image_left_a_gain_is_told(wrong): assert 'twice as many labels would give a probe of m about +' in labels_or_training(searched(42, wrong), 160)


@pytest.mark.parametrize('wrong, hollow', [((2, 1, 0, 0), False), ((0, 0, 0, 0), False), ((9, 6, 3, 1), True), ((2, 1, 1, 1), True)])
def test_nothing_is_drawn_beyond_all_images(wrong, hollow):
    fig = plot_best(searched(42, wrong))
    ax = fig.axes[1]
    points = [y for line in ax.lines for y in line.get_ydata()] + [y for bars in ax.collections for s in bars.get_segments() for y in s[:, 1]]
    assert max(points) <= 100 + 1e-9 and bool(ax.get_title()) == hollow
    plt.close(fig)
