"A figure of one pair of axes draws into those that it is given, and returns them."
import ast
from pathlib import Path
import matplotlib.pyplot as plt, pytest
from imgstudy.records.find import committed_records, records_in
from imgstudy.report import front, overview, plots
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


def test_each_figure_of_one_pair_of_axes_takes_them():
    "Figures of several, or of a table of pictures, make their own."
    for path in package.rglob('*.py'):
        for f in ast.walk(ast.parse(path.read_text())):
            if not isinstance(f, ast.FunctionDef) or not f.name.startswith('plot_') or f.name.endswith('_kept'): continue
            text, one = ast.unparse(f), 'Axes' in path.read_text().split(f'def {f.name}(')[1].split('"""')[0].split('"')[0].split('# ')[-1]
            if 'subplots(figsize' in text and text.split('subplots(figsize')[1].split('\n')[0].rstrip().endswith('[1]') and one:
                assert 'ax' in [a.arg for a in f.args.args], f'{path.name}: {f.name}'
