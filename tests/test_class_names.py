"Names of classes as people give them, in every figure that draws them: nothing overlaps, no warning, no formula."
import itertools, warnings
import matplotlib.pyplot as plt, numpy as np, pytest
from matplotlib.text import Text
from PIL import Image
from imgstudy.data.audit import audit_data, plot_class_counts, plot_classes, plot_duplicates, plot_means
from imgstudy.data.sources import plot_samples
from imgstudy.data.split import load_data
from imgstudy.apply import plot_explained
from imgstudy.labels import class_label
from imgstudy.predict import load_predictor, plot_predictions, predict
from imgstudy.report.compare import plot_confusion_change, plot_disagreements, plot_networks
from imgstudy.report.exhibits import plot_tiles
from imgstudy.report.explain import plot_grad_cam
from imgstudy.report.plots import plot_classwise, plot_confident_errors, plot_confusion, plot_counts, plot_curves
from imgstudy.study.create import create_run
from imgstudy.training.suspects import plot_suspects
from imgstudy.training.train import train

hard = ['a_name_of_sixty_letters_without_a_single_blank_that_never_ends', 'a name of sixty letters with blanks in it and then some more!!', '猫', '狗',
        '一只非常漂亮的橘色的猫和一只很大的黑色的狗一起坐在花园里面看风景', 'قطة صغيرة جميلة جدا', 'חתול לבן קטן', 'cat 🐱 and dog 🐶', 'costs $5_a$ or $6_b$',
        'ends in dots...', '__init__', r'back\slash $\frac{1}{2}$']
many = [f'{c} {k:02}' for k, c in enumerate(itertools.islice(itertools.cycle(hard), 40))]


def photographs(top, names, each=8):
    rng = np.random.default_rng(0)
    for c in names:
        (top/c).mkdir(parents=True)
        for i in range(each): Image.fromarray(rng.integers(0, 255, (40, 52, 3), np.uint8)).save(top/c/f'{i}.png')
    first = sorted(top.iterdir())
    for c in first[:2]: Image.fromarray(np.full((40, 52, 3), 9, np.uint8)).save(c/'same.png') # duplicates in two classes
    return top


@pytest.fixture(scope='module', params=[hard, many], ids=['12 classes', '40 classes'])
def trained(request, tmp_path_factory):
    "Two trainings on images whose classes have such names."
    top = tmp_path_factory.mktemp('names')
    photos = photographs(top/'photos', request.param, 8 if request.param is hard else 5)
    with pytest.MonkeyPatch.context() as m:
        m.setenv('IMGSTUDY_RUNS', str(top/'runs')); m.setenv('IMGSTUDY_CACHE', str(top/'cache'))
        yield photos, [train(create_run(dataset=f'folder:{photos}', model='lenet5', epochs=1, size=16, seed=s)) for s in (0, 1)]


@pytest.fixture(scope='module')
def audited(trained): return audit_data(f'folder:{trained[0]}')


def some(trained): return sorted(trained[0].glob('*/0.png'))[:12]

def suspects_of(trained):
    import pandas as pd
    paths = [p.relative_to(trained[0]) for p in some(trained)]
    return pd.DataFrame(dict(path=map(str, paths), label=[p.parts[0] for p in paths], likely=[p.parts[0] for p in paths[::-1]], p_likely=1.))

def networks(trained): return {f'{name} network': trained[1] for name in hard[:4]}

def predicted(trained): return plot_predictions(some(trained), predict(some(trained), trained[1][0], notes=False))

def tiles(trained):
    return plot_tiles([(np.zeros((9, 9, 3), np.uint8), f'{class_label(c, 18)}\n(wrong)') for c in hard], 6, side=1.1, lines=2)

figures = dict(
    counts=lambda t, a: plot_counts(load_data(t[1][0].run)), confusion=lambda t, a: plot_confusion(t[1]), classwise=lambda t, a: plot_classwise(t[1][0]),
    errors=lambda t, a: plot_confident_errors(t[1][0], load_data(t[1][0].run)), change=lambda t, a: plot_confusion_change(*t[1]),
    disagreements=lambda t, a: plot_disagreements(*t[1], load_data(t[1][0].run)), networks=lambda t, a: plot_networks(networks(t), 'of ' + hard[4] + hard[0]),
    grad_cam=lambda t, a: plot_grad_cam(t[1][0], some(t)), explained=lambda t, a: plot_explained(some(t), load_predictor(t[1][0])),
    predictions=lambda t, a: predicted(t), tiles=lambda t, a: tiles(t), suspects=lambda t, a: plot_suspects(suspects_of(t), t[0]),
    samples=lambda t, a: plot_samples(f'folder:{t[0]}').flat[0], audit_counts=lambda t, a: plot_class_counts(a), classes=lambda t, a: plot_classes(a),
    means=lambda t, a: plot_means(a), duplicates=lambda t, a: plot_duplicates(a), curves=lambda t, a: plot_curves(t[1])[0])


of_many = 'counts confusion classwise errors change suspects audit_counts means'.split() # figures that look otherwise with many classes


def clash(fig):
    "Titles that meet, or leave the figure; level labels of an axis that meet."
    fig.canvas.draw()
    box = lambda t: t.get_window_extent().padded(-1)
    shown = lambda ts: [t for t in ts if t.get_visible() and t.get_text().strip()]
    titles = shown([t for ax in fig.axes for t in (ax.title, ax._left_title, *ax.texts) if t.get_fontsize() > 6.9] + [fig._suptitle]*bool(fig._suptitle))
    groups = [titles, *([t for t in shown(axis.get_ticklabels()) if t.get_rotation() == 0] for ax in fig.axes if ax.axison for axis in (ax.xaxis, ax.yaxis))]
    whole = fig.get_tightbbox()
    out = [f'cut off: {whole} of {fig.get_size_inches()}']*bool(whole.x0 < -.03 or whole.x1 > fig.get_figwidth() + .03 or whole.y0 < -.03)
    return out + [(a.get_text(), b.get_text()) for ts in groups for a, b in itertools.combinations(ts, 2) if box(a).overlaps(box(b))]


@pytest.mark.parametrize('name', figures)
def test_a_figure_draws_them(name, trained, audited):
    if name not in of_many and len([*trained[0].iterdir()]) > 20: pytest.skip('shows few classes, however many there are')
    with warnings.catch_warnings():
        warnings.filterwarnings('error', message='Glyph')
        drawn = figures[name](trained, audited)
        fig = drawn.figure if drawn is not None and hasattr(drawn, 'transData') else drawn or plt.gcf()
        assert not clash(fig)
    assert not [t.get_text() for t in fig.findobj(Text) if '$' in t.get_text() and 'mathdefault' not in t.get_text() and t.get_parse_math()], 'no formulas'
    plt.close('all')


def test_one_epoch_shows_its_points(trained):
    assert all(line.get_marker() == 'o' for ax in plot_curves(trained[1]) for line in ax.lines if len(line.get_xdata()))
    plt.close('all')


def test_confusion_labels_read_level(trained):
    ax = plot_confusion(trained[1])
    assert {t.get_rotation() for t in ax.get_yticklabels()} <= {0}
    plt.close('all')


def test_classes_that_no_font_has_are_told_apart():
    assert class_label('猫') != class_label('狗')
