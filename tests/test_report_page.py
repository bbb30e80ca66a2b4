"The report: what it says follows from records, and nothing else."
import re, shutil, subprocess, sys
from pathlib import Path
import pytest
from imgstudy.core import StudyError
from imgstudy.stats.configs import transfer_pairs
from imgstudy.report.cards import headline_table, markdown_parts, markdown_table, readme_table, write_cards
from imgstudy.report.front import write_starts
from imgstudy.html import build_page
from imgstudy.records.record import read_record, read_records
from imgstudy.report.sections import results_table
from imgstudy.report.general import answer_parts, trainings_list
from imgstudy.records.find import committed_records, records_in
from imgstudy.report.tables import trainings_table

top = Path(__file__).parent.parent
kept = sorted(p.parent for p in committed_records().glob('*/record.json'))
schedules = [p for p in kept if re.match('cifar100-(perceptron2|lenet5)-', p.name)]


def copy(folders, dest):
    for p in folders: shutil.copytree(p, dest/p.name)
    return dest


def build(root, out): return build_page(top/'nbs/report.ipynb', out, 'A report', root=str(root)).read_text(encoding='utf-8')


@pytest.fixture(scope='module')
def small_report(tmp_path_factory):
    "The report of a few records, one of which has markup in the names of its classes."
    learnt = next(p for p in kept if p.name == 'cats_vs_dogs-lenet_modern-s0-18be756a') # better than chance: it has figures
    root = copy([*schedules, learnt], tmp_path_factory.mktemp('records'))
    evil = root/learnt.name/'record.json'
    text = evil.read_text()
    classes = read_record(evil.parent).info['data']['classes']
    for i, c in enumerate(classes): text = text.replace(f'"{c}"', f'"<script>alert({i})</script> $x_{i}$ & \\"q\\""')
    evil.write_text(text)
    return root, build(root, root/'page.html')


def test_page_is_the_same_again(small_report):
    root, page = small_report
    assert page == build(root, root/'again.html')


def test_names_are_text(small_report):
    _, page = small_report
    assert '<script' not in page and '&lt;script&gt;alert(0)' in page


def test_own_records_have_only_their_own_sections(small_report):
    "A study without a training has no heading, no empty table and no entry in the contents."
    root, page = small_report
    headings = re.findall('<h2 id=[^>]*>(.*?)</h2>', page)
    parts = re.findall('<h1 id=[^>]*>(.*?)</h1>', page)
    assert 'Schedules' in headings and parts[-1] == 'Every training'
    assert not {'Dog breeds', 'A small Vision Transformer', 'Augmentation', 'What we ran', 'Cats and dogs'} & set(headings)
    assert not [p for p in parts if p.startswith(('Dog breeds', 'CIFAR-10: '))] # a chapter without a section
    assert len(headings) == len(re.findall('<li class="level2">', page))
    assert str(Path.home()) not in page and str(root.parent.parent) not in page


def test_missing_record_is_missing_in_its_cells_alone(tmp_path):
    "Of a row with three seeds one goes: its cell and its line read missing, the row says 2 of 3, and every other row stays."
    root = copy([p for p in schedules if read_record(p).run.subset], tmp_path/'records')
    def tables():
        with records_in(root):
            return (trainings_table('cifar100_schedules', 'largest'), results_table('cifar100_schedules'),
                    trainings_list(read_records(root)))
    before = tables()
    names = [r for r in before[0].index if 'LeNet-5, cosine' in r]
    records = read_records(root)
    gone = next(r for r in records if r.run.model == 'lenet5' and r.run.recipe.schedule == 'cosine' and r.run.seed == 1 and r.run.subset)
    shutil.rmtree(root/gone.id)
    after = tables()
    changed = before[0].ne(after[0]) & ~(before[0].isna() & after[0].isna())
    assert changed.sum().sum() == 1 and after[0].loc[names[0], 'seed 1'] == 'missing'
    same = [row for row in before[1].index if row not in names]
    assert before[1].loc[same].equals(after[1].loc[same]) and after[1].loc[names[0], 'n'] == '2 of 3'
    says = lambda t: {getattr(i, 'text', i): a for i, a in zip(t.index, t['test accuracy'])}
    was, now = says(before[2]), says(after[2])
    assert {k for k in was if was[k] != now[k]} == {gone.id} and now[gone.id] == 'missing'


def test_missing_record_lets_no_other_claim_take_its_place():
    "Where one seed of a pair is gone, the pair stands with the seeds that are left."
    records = [r for r in map(read_record, kept) if r.outcome == 'finished']
    before = transfer_pairs(records)
    for name, sides in before.items():
        gone = sides[1][-1]
        after = transfer_pairs([r for r in records if r.id != gone.id]).get(name)
        if len(sides[1]) == 1: # the pair is gone with it; another one is of other images or settings, and says so
            assert not after or gone.id not in [r.id for side in after for r in side]
            continue
        assert [[r.id for r in side] for side in after] == [[r.id for r in side if r.run.seed != gone.run.seed] for side in sides]


def test_what_is_not_a_card_stays(tmp_path):
    (tmp_path/'README.md').write_text('mine')
    write_cards([read_record(schedules[0])], tmp_path)
    assert (tmp_path/'README.md').read_text() == 'mine' and len([*tmp_path.iterdir()]) == 3 # a card, and the page of all cards


def test_changed_accuracy_is_caught(tmp_path):
    root = copy(schedules[:2], tmp_path/'records')
    file = root/schedules[0].name/'record.json'
    right = f'"accuracy": {read_record(file.parent).metrics["accuracy"]}'
    assert right in file.read_text()
    file.write_text(file.read_text().replace(right, '"accuracy": 0.99'))
    made = subprocess.run([sys.executable, '-c', 'from imgstudy.cli import main; main()', 'verify', '--root', root], capture_output=True, text=True)
    assert made.returncode and schedules[0].name in made.stderr and '0.99' in made.stderr and '1 do not agree' in made.stdout


def test_empty_folder_names_the_fix(tmp_path):
    with pytest.raises(StudyError, match='train first'): build(tmp_path, tmp_path/'page.html')
    assert not (tmp_path/'page.html').exists()


def written_by_report(records, answers):
    "File and mark -> the text between the marks."
    return {('README.md', 'results'): markdown_table(readme_table(records)),
            ('docs/results.md', 'headline'): markdown_table(headline_table(records)), ('docs/results.md', 'findings'): answers}


def test_readme_docs_and_cards_say_what_the_records_say(tmp_path):
    records = [r for r in map(read_record, kept) if r.outcome == 'finished']
    with records_in(top/'report/records'): answers = markdown_parts(answer_parts(records, short=True))
    for (file, mark), text in written_by_report(records, answers).items():
        assert f'<!-- {mark} -->\n\n{text}\n<!-- /{mark} -->' in (top/file).read_text(encoding='utf-8'), 'run make report'
    write_starts(records, tmp_path/'starts.svg') # other versions of matplotlib place letters elsewhere
    marks = lambda path: [float(v) for xy in re.findall(r'<use xlink:href="#m\w+" x="([\d.]+)" y="([\d.]+)"', path.read_text()) for v in xy]
    assert len(marks(top/'report/starts.svg')) > 20
    assert marks(tmp_path/'starts.svg') == pytest.approx(marks(top/'report/starts.svg'), abs=2), 'run make report'
    (tmp_path/'starts.svg').unlink()
    made = {p.name: p.read_text(encoding='utf-8') for p in write_cards(records, tmp_path)}
    assert made == {p.name: p.read_text(encoding='utf-8') for p in (top/'report/cards').glob('*.md')}, 'run make report'
    assert (tmp_path/'index.html').read_text(encoding='utf-8') == (top/'report/cards/index.html').read_text(encoding='utf-8'), 'run make report'


def test_report_writes_what_was_found_into_readme_and_docs(tmp_path, monkeypatch):
    from imgstudy import cli, commands
    marks = written_by_report(*[[r for r in map(read_record, kept) if r.outcome == 'finished'], ''])
    (tmp_path/'docs').mkdir()
    for file, mark in marks:
        with (tmp_path/file).open('a') as f: f.write(f'<!-- {mark} -->\n<!-- /{mark} -->\n')
    for name, fake in dict(build_pages=lambda *args, **kw: ['a page'], write_cards=lambda *args: [], write_starts=lambda *args: None, checkout_path=lambda name: tmp_path/name).items():
        monkeypatch.setattr(commands, name, fake)
    cli.report_()
    between = lambda text, mark: text.split(f'<!-- {mark} -->')[1].split(f'<!-- /{mark} -->')[0]
    for file, mark in marks:
        made, known = (between((root/file).read_text(encoding='utf-8'), mark) for root in (tmp_path, top))
        assert made.strip() and made == known, 'run make report'


def test_committed_page_is_of_the_committed_records():
    "Each record is in its list, with its accuracy."
    page = (top/'report/runs.html').read_text(encoding='utf-8')
    for r in map(read_record, kept):
        assert re.search(rf'href="records/{re.escape(r.id)}/record.json".*?<td[^>]*>{r.metrics["accuracy"]:.4f} ', page), f'{r.id}: run make report'
    assert len(re.findall('href="records/', page)) == len(kept)


def test_records_are_small():
    size = sum(p.stat().st_size for p in committed_records().rglob('*') if p.is_file())
    assert size < 40e6 and (top/'report/full.html').stat().st_size < 9e6


def test_measures_of_the_page_to_read():
    "It is read in five minutes: few words, figures and tables, and no figure twice."
    page = (top/'report/index.html').read_text(encoding='utf-8')
    figures = re.findall('<figure.*?</figure>', page, flags=re.S)
    assert len(page) < 1.5e6 and 10 <= len(figures) <= 12 and page.count('<table') <= 2
    assert len({re.search(r' src="([^"]*)', f)[1] for f in figures}) == len(figures)
    assert not re.search('<script|<details', page) and 'mobilenetv2_keras' not in page


def test_no_figure_twice_in_the_report_to_hand_in():
    page = (top/'report/full.html').read_text(encoding='utf-8')
    pictures = re.findall(r' src="(data:image[^"]*)"', page)
    assert len(pictures) > 150 and len({*pictures}) == len(pictures)
