"A figure of one pair of axes draws into those that it is given, and returns them."
import ast, itertools
from pathlib import Path
import matplotlib.pyplot as plt, numpy as np, pytest
from matplotlib.text import Text
from imgstudy.records.find import committed_records, records_in, sound_records
from imgstudy.report import front, overview, plots
from imgstudy.report.compare import plot_run_curves
from imgstudy.report.coverage import coverage
from imgstudy.report.evidence import (best_of_networks, named_pairs, network_marks, published_accuracies, published_beside_ours, rungs)
from imgstudy.report.names import model_title
from imgstudy.report.overview import labels_table, study_groups
from imgstudy.report.page import phone_style, set_page_style
from imgstudy.report.tables import folds_table
from imgstudy.stats.configs import transfer_pairs
from imgstudy.stats.pairs import compare_all, plot_comparisons

package = Path(__file__).parent.parent/'imgstudy'


@pytest.fixture(scope='module')
def groups():
    with records_in(committed_records()): yield study_groups('cats_dogs_optimizers')


def draw(name, groups):
    "A call of the figure `name` that takes the axes."
    some = [rs for rs in groups.values()]
    with records_in(committed_records()):
        return dict(
            confusion=lambda ax: plots.plot_confusion(some[0], ax=ax), classwise=lambda ax: plots.plot_classwise(some[0][0], ax=ax),
            pairs=lambda ax: plots.plot_pairs(some[0], some[1], ax=ax),
            calibration=lambda ax: overview.plot_calibration(groups, ax=ax), changes=lambda ax: overview.plot_changes(groups, ax=ax),
            comparisons=lambda ax: plot_comparisons(compare_all(groups, next(iter(groups))), ax=ax),
            published=lambda ax: front.plot_published(published_beside_ours(), ax=ax), ladder=lambda ax: front.plot_ladder(rungs(), ax=ax),
            folds=lambda ax: front.plot_folds(folds_table('cats_dogs_optimizers', 'largest'), ax=ax),
            label_lines=lambda ax: front.plot_label_lines(labels_table(study_groups('label_efficiency')), .05, ax=ax),
            cost=lambda ax: front.plot_cost(groups, ax=ax))[name]


@pytest.mark.parametrize('name', 'confusion classwise pairs calibration changes comparisons published ladder folds label_lines cost'.split())
def test_into_given_axes(name, groups):
    plt.close('all')
    fig, (left, right) = plt.subplots(1, 2, figsize=(9, 4))
    with records_in(committed_records()): assert draw(name, groups)(right) is right
    assert plt.get_fignums() == [fig.number] and not left.has_data() and (right.has_data() or right.collections)
    fig.canvas.draw()
    plt.close('all')


def test_every_figure_takes_axes():
    for path in package.rglob('*.py'):
        for f in ast.walk(ast.parse(path.read_text())):
            if isinstance(f, ast.FunctionDef) and f.name.startswith('plot_'):
                assert 'ax' in [a.arg for a in f.args.args + f.args.kwonlyargs], f'{path.name}: {f.name}'


def test_axes_say_that_there_is_nothing_to_draw(groups, tmp_path):
    from imgstudy.data.audit import plot_duplicates
    from imgstudy.report.exhibits import plot_pairs_kept
    from types import SimpleNamespace
    import pandas as pd
    none = SimpleNamespace(pairs=pd.DataFrame(columns=['kind', 'group']))
    one = dict([*groups.items()][:1])
    for draw, text in ((lambda **k: overview.plot_changes(one, **k), 'nothing to compare'),
                       (lambda **k: plot_pairs_kept(dict(path=tmp_path, name='x'), **k), 'no image in two splits'),
                       (lambda **k: plot_duplicates(none, **k), 'no such pairs')):
        ax = plt.subplots()[1]
        assert draw(ax=ax) is ax and [t.get_text() for t in ax.texts] == [text] and not ax.axison
        assert draw() is None
        plt.close('all')


@pytest.mark.parametrize('name', 'group_curves bubbles curves run_curves'.split())
def test_panels_take_the_place_of_given_axes(name, groups):
    plt.close('all')
    fig, (left, right) = plt.subplots(1, 2, figsize=(12, 4), layout='constrained')
    with records_in(committed_records()):
        some = [rs for rs in groups.values()]
        drawn = dict(group_curves=lambda: overview.plot_group_curves(groups, ax=right), curves=lambda: plots.plot_curves(some[0], ax=right),
                     bubbles=lambda: overview.plot_bubbles(overview.groups_table(groups), ax=right),
                     run_curves=lambda: plot_run_curves(some[0][0], some[1][0], ax=right))[name]()
    fig.draw_without_rendering()
    assert drawn is right and plt.get_fignums() == [fig.number] and not left.has_data()
    inner = [a for a in fig.axes if a.has_data()]
    assert inner and all(a.get_position().x0 > left.get_position().x1 for a in inner)
    plt.close('all')


def test_what_is_at_the_top(tmp_path):
    import imgstudy
    from imgstudy.core import StudyError
    with pytest.raises(StudyError, match='There is no folder'): imgstudy.best(f'folder:{tmp_path}/nowhere')
    from imgstudy.report import figures
    assert imgstudy.style is figures.style and imgstudy.save_figure is figures.save_figure
    with pytest.raises(AttributeError, match="no attribute 'stile'"): imgstudy.stile


def touching(fig):
    "Pairs of texts with less than 4 pixels between them sideways; of the ticks those within the axes."
    fig.draw_without_rendering()
    ticks = [t.label1 for ax in fig.axes for axis in (ax.xaxis, ax.yaxis) if axis.get_visible() for t in axis._update_ticks() if t.label1.get_visible()]
    shown = [t for t in {*fig.findobj(Text)} - {t for ax in fig.axes for axis in (ax.xaxis, ax.yaxis) for t in axis.findobj(Text)} if t.get_visible()]
    shown = [t for t in shown + ticks if t.get_text().strip()]
    boxes = [(t.get_text(), Text.get_window_extent(t).padded(2, 0)) for t in shown]
    return sorted((*sorted([a, b]),) for (a, one), (b, other) in itertools.combinations(boxes, 2) if one.overlaps(other))


@pytest.mark.parametrize('texts, wanted', [(['a', 'b'], [('a', 'b')]), (['a', ''], []), (['a'], [])])
def test_texts_that_touch_are_found(texts, wanted):
    ax = plt.subplots()[1]
    for t in texts: ax.text(.5, .5, t)
    assert touching(ax.figure) == wanted
    plt.close('all')


@pytest.fixture(scope='module')
def of_the_page():
    "Name -> a function that draws a figure of the page to read."
    with records_in(committed_records()):
        records = sound_records(committed_records())[0]
        pairs, labels, ladder, folds = named_pairs(transfer_pairs(records)), labels_table(study_groups('label_efficiency')), rungs(), folds_table('cats_dogs_optimizers', 'largest')
        known = {('cats_vs_dogs', 'scratch'): .8949, ('cats_vs_dogs', 'transferred'): .9996}
        best = {(model_title(k), s): rs for (k, s), rs in best_of_networks(records, 'cifar10').items()}
        equal = {k: rs for (k, s), rs in best.items() if s == 'scratch' and rs[0].info['data']['counts']['train'] == 40_000}
        marks, beside, items = network_marks(best, published_accuracies('cifar10')), published_beside_ours(), coverage()
        curves = {f'{k}, as published': rs for k, rs in study_groups('cifar100_baseline').items()} | {'LeNet-5, tuned': study_groups('tuned')['CIFAR-100 LeNet-5']}
        yield dict(dumbbells=lambda: front.plot_dumbbells(pairs, known), coverage=lambda: front.plot_coverage(items), labels=lambda: front.plot_label_lines(labels, .05),
                   published=lambda: front.plot_published(beside), folds=lambda: front.plot_folds(folds), networks=lambda: front.plot_network_marks(marks),
                   curves=lambda: front.plot_labelled_curves(curves), ladder=lambda: front.plot_ladder(ladder), cost=lambda: front.plot_cost(equal))


@pytest.mark.parametrize('phone', (False, True), ids=('wide', 'phone'))
@pytest.mark.parametrize('name', 'dumbbells coverage labels published folds networks curves ladder cost'.split())
def test_no_labels_touch_on_the_page(name, phone, of_the_page):
    with plt.rc_context():
        set_page_style()
        plt.rcParams.update(phone_style if phone else {})
        ax = of_the_page[name]()
        assert touching(ax.figure) == []
        box, wide = ax.figure.get_tightbbox(), ax.figure.get_figwidth()
        assert wide == (3.7 if phone else 6.6) and box.x0 > -.1 and box.x1 < wide + .1
    plt.close('all')


def test_steps_of_the_ladder_add_up(of_the_page):
    "What stands in brackets leads from the lowest figure to the highest, as a reader adds them."
    said = [t.get_text() for t in of_the_page['ladder']().texts]
    ends = [float(s.split(' %')[0]) for s in said]
    steps = [float(s.split('(')[1].strip(')')) for s in said if '(' in s]
    assert len(steps) == len(ends) - 1 and f'{sum(steps):.1f}' == f'{ends[-1] - ends[0]:.1f}'
    assert [f'{b - a:+.1f}' for a, b in zip(ends, ends[1:])] == [f'{s:+.1f}' for s in steps]
    plt.close('all')


@pytest.mark.parametrize('places, wide', [([.5, .5, .5], .1), ([.9, .1, .11, .5], [.2, .1, .3, .1]), ([1., 1., 2.], [2, 4, 1]), ([3.], 1)])
def test_spread_keeps_the_order_and_the_distance(places, wide):
    moved, wide = front.spread(places, wide), np.broadcast_to(wide, len(places))
    order = np.argsort(places, kind='stable')
    assert (np.diff(moved[order]) >= (wide[order][:-1] + wide[order][1:])/2 - 1e-9).all()


@pytest.fixture(scope='module')
def some_records(): return sound_records(committed_records())[0][:2]


# path, kinds, files
written = {'figure4.png': ('', ['figure4.png']), 'new/er/figure': ('', ['figure.svg', 'figure.pdf', 'figure.png']), 'figure.SVG': ('', ['figure.SVG']), 'figure.4': ('png', ['figure.4.png']),
           'new/figure.pdf': ('svg png', ['figure.svg', 'figure.png']), '~/figure.pdf': ('', ['figure.pdf']), 'a.b': ('', ['a.b.svg', 'a.b.pdf', 'a.b.png']), 'a.svg': ('svg', ['a.svg'])}
as_given = dict(one=lambda rs: rs[0], list=lambda rs: rs[:1], folder=lambda rs: rs[0].path, text=lambda rs: str(rs[0].path), turns=lambda rs: iter(rs[:1]), several=lambda rs: tuple(rs))


@pytest.mark.parametrize('path', written)
def test_a_figure_is_saved_where_and_as_its_path_says(path, some_records, tmp_path, monkeypatch):
    from imgstudy.report.figures import save_figure
    monkeypatch.chdir(tmp_path); monkeypatch.setenv('HOME', str(tmp_path/'home'))
    fig, (kinds, names) = plt.subplots(figsize=(1, 1))[0], written[path]
    files = save_figure(fig, path, some_records[0], kinds)
    assert [f.name for f in files] == names
    assert sorted(p.name for p in tmp_path.rglob('*.*')) == sorted(names) and all(f.parent == Path(path).parent.expanduser() for f in files)
    starts = dict(svg=b'<?xml', pdf=b'%PDF', png=b'\x89PNG')
    for f in files: assert f.read_bytes().startswith(starts[f.suffix[1:].lower()]) and some_records[0].id.encode() in f.read_bytes()
    plt.close('all')


@pytest.mark.parametrize('given', as_given)
def test_the_records_of_a_figure(given, some_records, tmp_path):
    from imgstudy.report.figures import save_figure
    file, = save_figure(plt.subplots(figsize=(1, 1))[0], tmp_path/'a.svg', as_given[given](some_records))
    assert [r.id in file.read_text() for r in some_records] == [True, given == 'several']
    plt.close('all')


@pytest.mark.parametrize('path, kinds, says', [('a.jpg', '', "no figure file 'jpg'"), ('a', 'svg jpg', "no figure file 'jpg'"), ('a.eps', '', "no figure file 'eps'"), ('file/a', '', 'Nothing can be written to')])
def test_what_cannot_be_written_leaves_nothing(path, kinds, says, tmp_path):
    from imgstudy.core import StudyError
    from imgstudy.report.figures import save_figure
    (tmp_path/'file').write_text('x')
    with pytest.raises(StudyError, match=says): save_figure(plt.subplots(figsize=(1, 1))[0], tmp_path/path, (), kinds)
    assert [*tmp_path.iterdir()] == [tmp_path/'file']
    plt.close('all')
