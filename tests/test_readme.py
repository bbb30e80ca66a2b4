"README and docs: short, every link leads somewhere, every number of the table of studies is one of the records."
import re
from pathlib import Path
import numpy as np, pytest
from imgstudy.records.find import records_in, sound_records
from imgstudy.report.overview import study_groups
from imgstudy.stats.configs import transfer_pairs
from imgstudy.references import references
from imgstudy.report.names import as_label, dataset_title
from imgstudy.report.tables import comparisons_table
from imgstudy.stats.pairs import paired_gain
from imgstudy.study.studies import studies

top = Path(__file__).parent.parent
readme = (top/'README.md').read_text(encoding='utf-8')
pages = [top/'README.md', *sorted((top/'docs').glob('*.md'))]


def test_readme_is_short():
    assert len(readme.splitlines()) <= 150 and len(readme.split()) <= 1200


@pytest.mark.parametrize('page', pages, ids=lambda p: p.stem)
def test_links_lead_somewhere(page):
    for link in re.findall(r'\]\(([^)#]+)\)', page.read_text(encoding='utf-8')):
        assert link.startswith('http') or (page.parent/link).exists(), link


def test_every_page_is_linked():
    index = (top/'nbs/index.ipynb').read_text(encoding='utf-8')
    assert all(f'docs/{p.name}' in readme and f'docs/{p.name}' in index for p in pages[1:])


def test_every_notebook_is_in_the_list():
    listed = (top/'docs/notebooks.md').read_text(encoding='utf-8')
    assert [p.stem for p in sorted((top/'nbs').glob('*.ipynb')) if f'/{p.stem}.ipynb)' not in listed] == []


def best(study, row):
    "Mean test accuracy in percent of the records of a row."
    with records_in(top/'report/records'): groups = study_groups(study)
    return 100*np.mean([r.metrics['accuracy'] for r in groups[row]])


@pytest.mark.parametrize('said, study, row', [
    ('MobileNetV2: {:.1f} % here, with our recipe; published 80 %', 'dog_breeds', 'MobileNetV2'),
    ('six-layer CNN reaches {:.1f} %', 'tuned', 'CIFAR-10 cnn3, Nesterov'),
    ('tuned, {:.1f} % with the first recipe', 'cifar100_baseline', 'LeNet-5'),
    ("{:.1f} % with the report's best (published 29.7 %)", 'cifar100_schedules', 'LeNet-5, one cycle'),
    ('LeNet-5: {:.1f} % tuned', 'tuned', 'CIFAR-100 LeNet-5, Nesterov'),
    ('{:.1f} % from scratch; ResNet-18 (CNTK)', 'cifar10_scratch_vs_resnet18', 'CNN from scratch'),
    ('from scratch; ResNet-18 (CNTK), 32 pixels: {:.1f} %', 'cifar10_scratch_vs_resnet18', 'ResNet-18 of CNTK, fine-tuned'),
    ('128 pixels, 40,000 images: {:.1f} %', 'transfer', 'CIFAR-10, ResNet-18 of CNTK: all layers from the probe, 128 pixels')])
def test_answers_are_those_of_the_records(said, study, row):
    assert said.format(best(study, row)) in readme


def test_the_gain_of_adam_is_that_of_the_folds():
    "Of the three comparisons the one that stands after adjustment for all three."
    with records_in(top/'report/records'): t = comparisons_table('cats_dogs_optimizers', 'largest')
    told = t[t.better.notna()]
    assert [*told.better] == ['Adam'] and f'Adam beats SGD by {100*told.difference.iloc[0]:.1f} points' in readme


def test_published_figures_said_to_be_chosen_on_their_images_are():
    t = references()
    said = re.search(r'larger trainings; (.+?) were selected on the images on which they are reported', readme)[1]
    shown = {float(x) for x in re.findall(r'([\d.]+) %', said)}
    chosen = t[(t.selected_on == t.split) & (t.selected_on != '') & (t.metric == 'accuracy') & t.study.isin([*studies])]
    assert shown <= {round(100*v, 3) for v in chosen.value} and len(shown) == 3


def test_a_published_figure_that_its_report_prints_otherwise_is_flagged():
    t = references()
    text, table = (round(float(x)/100, 5) for x in re.search(r'([\d.]+) % is ([\d.]+) % in that report', readme).groups())
    rows = t[(t.study == 'cats_dogs_architectures') & (t.model == 'convnext_base') & (t.metric == 'accuracy')]
    assert {text, table} == {*rows.value} and rows.note[rows.value == text].str.contains(f'{table} in the table').all()


def test_what_the_weights_and_the_stand_in_are_is_said_beside_the_table():
    below = readme.split('<!-- /results -->')[1].split('##')[0]
    assert 'photographs of dogs, test images included' in below and 'STL-10 was not at hand' in below and 'CNTK' in below
    assert '| ' + as_label(dataset_title('stl5_standin')) + ' |' in readme  # whose images they are


def answers(text):
    "The last cells of the table of the five studies."
    table = text.split('what we found |')[1].split('\n\n')[0]
    return [row.strip()[1:-1].split('|')[-1].strip() for row in table.splitlines()[2:]]


def test_answers_are_short():
    assert len(answers(readme)) == 5 and [a for a in answers(readme) if len(a.split()) > 25] == []


@pytest.mark.parametrize('cells, wanted', [('|a|b|c d|', 'c d'), ('| a | b | one |', 'one'), ('|x|y|1.0 %.|', '1.0 %.'), ('|x|y||', '')])
def test_answers_are_found(cells, wanted):
    assert answers(f'|a|b|what we found |\n|---|---|---|\n{cells}\n\nrest|') == [wanted]


shown = ('mobilenetv2_keras on stanford_dogs20, from ImageNet', 'mobilenetv2_keras on cats_vs_dogs, from ImageNet',
         'lenet5 on stl5_standin, from cifar100 (40,000 images, 20 epochs)')


def test_gains_are_those_of_the_records():
    "One gain per comparison: what docs/transfer.md says is what the records give."
    with records_in(top/'report/records'):
        pairs = transfer_pairs(sound_records(top/'report/records')[0])
        gains = [paired_gain(*pairs[k]) for k in shown]
    said = (top/'docs/transfer.md').read_text(encoding='utf-8')
    for g in gains:
        low, high = g.both
        line = f'{100*g.base:.1f} | {100*g.other:.1f} | {100*g.difference:+.1f} ({100*low:+.1f} to {100*high:+.1f})'
        assert line in said
