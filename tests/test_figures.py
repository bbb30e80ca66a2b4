"A figure of one pair of axes draws into those that it is given, and returns them."
import ast
from pathlib import Path
import matplotlib.pyplot as plt, pytest
from imgstudy.records.find import committed_records, records_in
from imgstudy.report import front, overview, plots
from imgstudy.report.compare import plot_run_curves
from imgstudy.report.evidence import published_beside_ours, rungs
from imgstudy.report.overview import labels_table, study_groups
from imgstudy.report.tables import folds_table
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
