"The words of the page: as many as there is time for, names that people use, and sentences that follow from the records."
import base64, copy, html, json, re
from pathlib import Path
import numpy as np, pandas as pd, pytest
from imgstudy.records.find import committed_records, find_records, records_in
from imgstudy.html import typeset, typeset_html
from imgstudy.records.record import read_records
from imgstudy.report.findings import Aim, change_groups, single_changes, target_sentence, transfer_verdict
from imgstudy.report.front import plot_dumbbells, plot_folds, plot_network_marks, plot_published
from imgstudy.report.names import model_title, named, plain_names
from imgstudy.report.overview import study_groups
from imgstudy.report.page import as_list, count, given
from imgstudy.report.sections import missing_line, published_and_ours, rates_figure, results_table, study_section, worth_showing
from imgstudy.report.wording import points_span
from imgstudy.stats.configs import transfer_pairs
from imgstudy.stats.pairs import paired_gain, with_partners
from imgstudy.study.studies import study_runs

top = Path(__file__).parent.parent
cells = json.loads((top/'nbs/report.ipynb').read_text(encoding='utf-8'))['cells']
limits = {'The answer': 85, 'What we ran': 80, 'How few labels are enough?': 100, 'Do the published numbers hold?': 120,
          'Cats and dogs': 80, 'Dog breeds': 60, 'CIFAR-10, by network': 90, 'CIFAR-100 and STL-10': 80,
          'A small CNN against ResNet-18': 70, 'Architecture, or tuning?': 100, 'Accuracy against cost': 60, 'Where it errs': 60,
          'What to doubt, and how to run it again': 150}


def words(page):
    "Heading of a section -> number of its words outside figures, tables and folded parts."
    page = re.sub(r'<(style|nav|figure|details|table)\b.*?</\1>', '', page, flags=re.S)
    parts = re.split('<h2[^>]*>(.*?)</h2>', page)[1:]
    text = lambda s: html.unescape(re.sub('<[^>]+>', ' ', s))
    return {html.unescape(h): len(re.findall(r'[\w%]\S*', text(s))) for h, s in zip(parts[::2], parts[1::2])}


def visible(page):
    "What is read: text, alternative texts, captions; no code, no pictures."
    page = re.sub(r'<details class="code">.*?</details>|<style.*?</style>|src="[^"]*"|<code>.*?</code>', '', page, flags=re.S)
    return html.unescape(' '.join(re.findall('alt="([^"]*)"', page)) + re.sub('<[^>]+>', ' ', page))


def test_each_section_keeps_to_its_words():
    counted = words((top/'report/index.html').read_text(encoding='utf-8'))
    assert [*counted] == [*limits]
    assert {h: n for h, n in counted.items() if n > limits[h]} == {}


@pytest.mark.parametrize('text, wanted', [('one two', 2), ('<p>84.5 % of <b>it</b></p>', 4), ('a <figure>b</figure> c', 2), ('<table><td>a</td></table>', 0)])
def test_words_are_counted(text, wanted): assert words(f'<h2 id="a">A</h2>{text}') == {'A': wanted}


@pytest.mark.parametrize('name', ['index', 'full'])
def test_no_code_names_where_a_reader_looks(name):
    classes = {c for r in read_records(committed_records())[:400] if r.outcome == 'finished' for c in r.info['data']['classes']}
    text = visible((top/f'report/{name}.html').read_text(encoding='utf-8'))
    text = re.sub(r'imgstudy [a-z-]+ \S+', '', text)  # commands are typed as they are
    found = set(re.findall(r'(?<![\w/.-])[a-z]\w*_\w+(?![\w./-])', text)) - classes
    assert not found and not re.search(r'\b(mobilenetv2|lenet5|cnn3|resnet9|cifar10|cifar100)\b(?![-/_])', text)


@pytest.mark.parametrize('text, wanted', [
    ('mobilenetv2_keras on stanford_dogs20, from ImageNet', 'MobileNetV2 on 20 dog breeds, from ImageNet'),
    ('CIFAR-10 cnn_custom, 100 epochs', 'CIFAR-10 five-layer CNN, 100 epochs'),
    ('cifar10-lenet5-s0-0cf698a5', 'cifar10-lenet5-s0-0cf698a5'), ('imgstudy run cifar10_mlp --jobs 2', 'imgstudy run cifar10_mlp --jobs 2')])
def test_names(text, wanted):
    assert plain_names(text) == wanted
    assert named([as_list([text])])[0].data == f'<ul><li>{wanted}</li></ul>'


def nothing_missing(name): return '[nan' not in name and 'nan]' not in name


def test_full_report_says_what_is_missing_once():
    text = visible((top/'report/full.html').read_text(encoding='utf-8'))
    assert nothing_missing(text) and not re.search(r'\bnan\b', text) and text.count(' missing ') < 5


@pytest.mark.parametrize('study, said', [
    ('cats_dogs_architectures', 'Not trained, for want of their pretrained weights: ViT-B, in21k (99.'),
    ('dog_breeds', 'ConvNeXt-Base (91.875 % published)'),
    ('cifar10_scratch_vs_resnet18', 'ResNet-18, fine-tuned (86 % published)')])
def test_what_is_missing_is_one_line(study, said):
    table = results_table(study)
    assert said in missing_line(table, study)
    parts = published_and_ours(table, study)
    assert all('missing' not in p.data and nothing_missing(p.data) for p in parts)
    assert sum('Not trained' in p.data for p in parts) == 1


def test_what_records_do_not_hold_is_named():
    table = results_table('dog_breeds')
    ours = (table.metric == 'ms per step') & (table.index == 'MobileNetV2')
    assert ours.any()
    without = table.assign(ours=table.ours.where(~ours, 'not recorded'))
    assert missing_line(without, 'dog_breeds').endswith('Our records hold no ms per step.')


def test_nothing_is_said_of_what_is_not_missing():
    whole = results_table('cifar10_mlp')
    assert missing_line(whole, 'cifar10_mlp') is None and len(published_and_ours(whole, 'cifar10_mlp')) == 2


def test_no_picture_of_constant_rates():
    "Rates of a flat schedule have no figure; where some vary, those are drawn."
    flat, some = study_groups('cats_dogs_optimizers'), study_groups('cifar100_schedules')
    assert rates_figure(flat) is None and rates_figure({}) is None
    cosine = {k: rs for k, rs in some.items() if 'cosine' in k}
    mixed = rates_figure(flat | cosine).data
    assert all(k in mixed for k in cosine) and 'AdamW' not in mixed
    assert not any('Learning rate at' in p.data for p in study_section('cats_dogs_optimizers'))


def test_networks_at_chance_are_shown_only_if_that_is_published():
    grid = study_groups('cifar10_cnn_augmentation')
    dead = [k for k, rs in grid.items() if all(r.metrics['accuracy'] == .1 for r in rs)]
    assert dead and not {*dead} & {*worth_showing('cifar10_cnn_augmentation', grid)}
    guessing = {'MLP (L)': next(rs for k, rs in grid.items() if k in dead)}
    assert worth_showing('cifar10_mlp', guessing) == {} and worth_showing('cifar10_mlp', {}) == {}
    assert [*worth_showing('cats_dogs_optimizers', study_groups('cats_dogs_optimizers'))] == [*study_groups('cats_dogs_optimizers')]


def run_cell(start, **values):
    "The text that the cell of the report with this text shows, with some of its names replaced."
    source, = (''.join(c['source']) for c in cells if c['cell_type'] == 'code' and start in ''.join(c['source']))
    imports, = (''.join(c['source']) for c in cells if 'from imgstudy.report.ahead' in ''.join(c['source']))
    shown, names = [], {}
    exec('\n'.join(line for line in imports.splitlines() if line.startswith(('import', 'from'))), names)
    names |= dict(ahead={s: ['chapter'] for s in study_names}, show=shown.extend, compared=pd.DataFrame(),
                  images=lambda rs: rs[0].info['data']['counts']['train'], at_full=lambda study, row: [],
                  by_points=lambda gain: points_span(gain.difference, gain.low, gain.high)) | values
    exec(source, names)
    assert shown[-1] == 'chapter'
    return visible(' '.join(p.data for p in shown[:-1]))


study_names = 'cats_dogs_optimizers', 'cifar10_cnn_regularisation', 'cifar10_cnn_augmentation', 'cifar10_scratch_vs_resnet18', 'cifar10_cnn_batch_lr'


def changed(records, by):
    "Records as if each had that much more accuracy."
    made = copy.deepcopy(records)
    for r in made:
        r.metrics['accuracy'] += by
        right = np.asarray(r.predictions['target']) == r.predictions['pred']
        n = int(round(by*len(right)))
        places = np.flatnonzero(~right)[:n] if n > 0 else np.flatnonzero(right)[:-n]
        r.predictions['pred'][places] = r.predictions['target'][places] if n > 0 else (r.predictions['target'][places] + 1) % 10
    return made


at_row = 'batch 128, rate 0.001, L2 {}, dropout {}, {}'.format


def full_rows(study, *rows):
    "Row -> its records at full scale."
    return {row: find_records(study_runs(study, 'full')[row]) for row in rows}


def points(gain):
    return f'{100*gain.difference:+.1f} points ({100*gain.low:+.1f} to {100*gain.high:+.1f})'.replace('-', '−')


@pytest.mark.parametrize('by', [0, .06, -.2])
def test_erasing_follows_from_its_records(by):
    none, basic, erasing = (at_row(0, .5, k) for k in ('none', 'basic', 'erasing'))
    rows = full_rows('cifar10_cnn_augmentation', none, basic, erasing)
    if by: rows[erasing] = changed(rows[erasing], by)
    text = ' '.join(run_cell('The report prints {{basic|given}}', at_full=lambda study, row: rows[row]).split())
    for a, b in ((basic, erasing), (none, basic)): assert points(paired_gain(*with_partners(rows[a], rows[b]))) in text
    seeds = {r.run.seed for r in rows[basic]} & {r.run.seed for r in rows[erasing]}
    assert '71 % with the basic' in text and '65 % with random' in text
    assert (f'over {len(seeds)} seeds.' if len(seeds) > 1 else 'one training each') in text


@pytest.mark.parametrize('by', [0, .1, -.2])
def test_l2_follows_from_its_records(by):
    names = {k: (at_row(0, k, 'none'), at_row(.01, k, 'none')) for k in (0, .5)}
    rows = full_rows('cifar10_cnn_regularisation', *names[0], *names[.5])
    if by: rows[names[.5][1]] = changed(rows[names[.5][1]], by)
    text = ' '.join(run_cell('an L2 of 0.01 changes', at_full=lambda study, row: rows[row]).split())
    for a, b in names.values(): assert points(paired_gain(*with_partners(rows[a], rows[b]))) in text
    assert run_cell('an L2 of 0.01 changes', at_full=lambda study, row: []).strip() == ''


def test_fine_tuning_follows_from_its_records():
    "A better probe changes the sentence, and so does the change that brings most."
    what = 'ResNet-18 of CNTK on CIFAR-10'
    groups = change_groups()[what]
    start = "show([*words, *ahead['cifar10_scratch_vs_resnet18']])"
    before = run_cell(start)
    after = run_cell(start, change_groups=lambda: {what: groups | {'linear probe': changed(groups['linear probe'], .1)}})
    percent = lambda x: f'{100*x:.1f} %'
    probe = groups['linear probe'][0].metrics['accuracy']
    assert f'a linear probe {percent(probe)}' in before and f'a linear probe {percent(probe + .1)}' in after
    rise = lambda k: np.mean([b.metrics['accuracy'] for b in groups[k]]) - np.mean([a.metrics['accuracy'] for a in groups['as published']])
    most = max([k for k in single_changes(groups) if k != 'linear probe'], key=rise)  # a probe is changed alone
    assert f'{most} brings most' in re.sub(r'\s+', ' ', before) and 'linear probe brings most' in re.sub(r'\s+', ' ', after)
    assert run_cell(start, change_groups=lambda: {}).strip() == ''


def test_what_is_too_short_to_tell_brings_neither_most_nor_least():
    changes = change_groups()['ResNet-18 of CNTK on CIFAR-10']
    gains = {k: paired_gain(changes['as published'], changes[k]) for k in single_changes(changes)}
    text = re.sub(r'\s+', ' ', run_cell("show([*words, *ahead['cifar10_scratch_vs_resnet18']])"))
    told = [k for k in gains if gains[k].told]
    assert (f'({count(len(gains) - len(told))} too short to tell)' in text) == (len(told) < len(gains))
    for pick, said in ((max, 'brings most'), (min, 'least')): assert f'{pick(told, key=lambda k: gains[k].difference)} {said}' in text


@pytest.mark.parametrize('shift, said', [(0., 'no difference detected'), (.05, 'a difference')])
def test_published_folds_follow_from_the_figures(shift, said):
    "By hand: t interval of five differences, widened for the training images that folds share."
    from imgstudy.report.tables import folds_table
    folds = folds_table('cats_dogs_optimizers', 'largest')
    folds['Adam, published'] = folds['Adam, published'] + shift
    text = run_cell("AdamW instead of Adam changes", folds_table=lambda *args: folds).replace('−', '-')
    gain = (folds['Adam, published'] - folds['AdamW, published']).drop('mean').dropna().astype(float)
    half = 2.776*gain.std(ddof=1)*(1/5 + 1/4)**.5
    assert f'{100*gain.mean():+.2f}' in text and f'{100*(gain.mean() + half):+.2f}' in text and said in text


def test_verdict_on_transfers_follows_from_the_pairs():
    pair = next(iter(transfer_pairs([r for r in read_records(committed_records()) if r.outcome == 'finished']).values()))
    up, down, same = dict(a=pair), dict(a=pair[::-1]), dict(a=(pair[0], pair[0]))
    assert transfer_verdict({}) is None
    assert 'won one of one comparison, by' in transfer_verdict(up) and 'no difference' not in transfer_verdict(up)
    assert 'won none of one comparison; one lost, by' in transfer_verdict(down)
    assert 'won none of one comparison; in one no difference was detected.' in transfer_verdict(same)


texts = lambda ax: [t.get_text() for t in ax.texts]


@pytest.mark.parametrize('value, wanted', [(.9996, '99.96 %'), (.83, '83 %'), (.91875, '91.875 %'), (.7252, '72.52 %')])
def test_published_figures_keep_their_digits(value, wanted):
    marks = pd.DataFrame([dict(name='a CNN', start='scratch', what='published', accuracy=value, low=np.nan, high=np.nan),
                          dict(name='a CNN', start='scratch', what='from scratch', accuracy=.5, low=.4, high=.6)])
    ax = plot_network_marks(marks)
    assert given(value) == wanted and {wanted, '50.0 %'} <= {*texts(ax)}
    assert [t.get_text() for t in ax.get_yticklabels()] == ['CNN']


@pytest.mark.parametrize('text, wanted', [
    ('69.5 % and 3 points', '69.5\u00a0% and 3\u00a0points'), ('by -2.0 (-2.4 to +1.1)', 'by \u22122.0 (\u22122.4 to +1.1)'),
    ('at 96 pixels, 8 epochs', 'at 96\u00a0pixels, 8\u00a0epochs'), ('p 1e-05', 'p 10\u207b\u2075'), ('2.7e-12', '2.7\u00a0\u00d7\u00a010\u207b\u00b9\u00b2'),
    ('cifar10-lenet5-s0-0cf698a5', 'cifar10-lenet5-s0-0cf698a5'), ('LeNet-5, 2-layer', 'LeNet-5, 2-layer'), ('5 percentages', '5 percentages'), ('with 96%, a%20b', 'with 96\u00a0%, a%20b')])
def test_text_is_set_as_an_editor_would(text, wanted):
    assert typeset(text) == wanted and typeset(wanted) == wanted
    assert typeset_html(f'<p>{text}</p><code>{text}</code>') == f'<p>{wanted}</p><code>{text}</code>'
    assert typeset_html(f'<img src="{text}" alt="{text}">') == f'<img src="{text}" alt="{wanted}">'


def drawings(page):
    "The drawings of a page, those for phones among them: (where, SVG)."
    found = re.findall(r' (src|srcset)="data:image/svg.xml;base64,([^"]*)"', page)
    return [(where, base64.b64decode(data).decode()) for where, data in found]


@pytest.mark.parametrize('name', ['index', 'full', 'runs', 'cards/index'])
def test_numbers_keep_their_units_and_minus_signs(name):
    "No line can break between a number and its unit, and no hyphen stands for a minus, in texts and in figures."
    page = (top/f'report/{name}.html').read_text(encoding='utf-8')
    text = visible(re.sub('<(pre|script).*?</\\1>', '', page, flags=re.S))
    assert re.findall(r'.{20}\d(?:%| %| points?| pixels| epochs?| minutes| seconds)(?!\w)', text) == []
    assert re.findall(r'.{20}(?<![\w.)\]-])-[\d.].{5}', text) == []
    drawn = [t for _, svg in drawings(page) for t in re.findall('<text[^>]*>(.*?)</text>', svg, re.S)]
    assert [t for t in drawn if re.search(r'(?<!\w)-[\d.]|\de-\d', t)] == [] and (len(drawn) > 100 or name not in ('index', 'full'))


def test_every_figure_of_the_page_is_drawn_for_a_phone():
    "Its picture is narrow: in the 356 pixels of a phone the smallest letters have 9."
    page = (top/'report/index.html').read_text(encoding='utf-8')
    figures = re.findall('<figure.*?</figure>', page, flags=re.S)
    assert figures and all('<source media="(max-width: 600px)" srcset="data:' in f for f in figures)
    for where, svg in drawings(page):
        wide = float(re.search(r'width="([\d.]+)pt"', svg)[1])
        least = min(map(float, re.findall(r'font(?:-size)?: (?:bold )?([\d.]+)px', svg)))
        if where == 'srcset': assert 356/wide*least >= 9, re.findall('<text[^>]*>(.*?)</text>', svg)[:3]


@pytest.mark.parametrize('target, mean, said', [(.365, .2976, 'missed by 6.7 points'), (.725, .7227, 'missed by 0.2 points'), (.7, .6996, 'missed by less than 0.1 points'),
                                                (.93, .92, 'missed by 1.0 point,'), (.6, .61, 'reached')])
def test_what_is_missed_is_the_difference_of_what_is_printed(target, mean, said):
    text = target_sentence(Aim('a row', target, (mean, mean - .001, mean + .001, 'images', 1), {}))
    assert said.rstrip(',') in text and (said != 'missed by 1.0 point,' or 'points' not in text)


def test_links_of_the_page_open_in_a_browser():
    "A page or a place in one, no Markdown and no bare folder."
    page = (top/'report/index.html').read_text(encoding='utf-8')
    links = [l for l in re.findall('<a href="([^"]*)"', page) if not l.startswith('#')]
    assert len(links) >= 4
    for link in links:
        file, _, place = link.partition('#')
        assert file.endswith('.html') and (not place or f'id="{place}"' in (top/'report'/file).read_text(encoding='utf-8')), link


def test_the_small_cnn_is_named():
    "The heading is that of the report; the first sentence says which network it means."
    section = (top/'report/index.html').read_text(encoding='utf-8').split('>A small CNN against ResNet-18</h2>')[1]
    assert model_title('cnn_custom').removeprefix('a ') in section.split('.')[0]
