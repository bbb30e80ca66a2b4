"A folder of records with copies in it (a backup, 'copy of', two machines merged): a training counts once."
import shutil
from pathlib import Path
import pytest
from imgstudy.records.find import sound_records
from imgstudy.records.record import read_records
from imgstudy.stats.seeds import records_table

committed = Path(__file__).parent.parent/'report/records'
three = sorted(committed.glob('digits-*-s[0-9]-*'))[:1] + sorted(committed.glob('cifar10-lenet*-s[0-9]-*'))[:2]


@pytest.mark.parametrize('names', [['backup 0', 'backup 1', 'backup 2'], ['AAA'], ['zzz (copy)', 'Kopie von x'], ['1', '2']])
def test_a_copy_is_left_out_and_named(tmp_path, names):
    assert len(three) == 3
    for p in three: shutil.copytree(p, tmp_path/p.name)
    for name in names: shutil.copytree(three[0], tmp_path/name)
    found = read_records(tmp_path, copies=(copies := []))
    assert [r.path.name for r in found] == sorted(p.name for p in three)
    assert len(copies) == len(names) and all(any(c.startswith(f'{n} is left out') for c in copies) for n in names)
    assert len(records_table(found)) == 3
    kept, messages = sound_records(tmp_path)
    assert len(kept) == 3 and not [m for m in messages if not any(m.startswith(n) for n in names)]


def test_a_record_alone_counts_under_any_name(tmp_path):
    shutil.copytree(three[0], tmp_path/'renamed')
    assert len(read_records(tmp_path, copies=(copies := []))) == 1 and not copies


@pytest.mark.parametrize('below', ['backup', 'backup/of monday', 'old/2024/deeper'])
def test_a_copy_in_a_folder_of_its_own_is_named_too(tmp_path, below, capsys):
    "By `verify`, the statistics and the report; what is no copy is named with the way to read it."
    from imgstudy.cli import answer
    root = tmp_path/'runs'
    for p in three[:2]: shutil.copytree(p, root/p.name)
    shutil.copytree(three[0], root/below/three[0].name)
    shutil.copytree(three[1], root/below/'renamed')
    shutil.copytree(three[2], root/below/three[2].name)
    found = read_records(root, copies=(said := []))
    assert {r.path.parent for r in found} == {root} and len(records_table(found)) == 2 and len(said) == 3
    assert f'{below}/renamed is left out: {three[1].name} is a record of the same run.' in said
    assert f'{below} holds 1 further record, which is not counted: name that folder with --root, or move it into runs.' in said
    assert sound_records(root)[1] == said
    answer(['verify', '--root', str(root)])
    out = capsys.readouterr().out
    assert out.startswith('2 records: 2 agree') and all(line in out for line in said)
    (root/below/'renamed/record.json').write_text('{')
    assert len(read_records(root, copies=[])) == 2
    shutil.copytree(three[0], root/'.hidden'/three[0].name)
    (root/'search').mkdir(), (root/'search/units.json').write_text('{}')
    shutil.copytree(three[0], root/'search/tries'/three[0].name) # of `imgstudy best`
    read_records(root, copies=(again := []))
    assert not [line for line in again if 'hidden' in line or 'search' in line]
