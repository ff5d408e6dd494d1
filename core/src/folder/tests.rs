//! Folder runs on real folders with a small tagger.

use std::fs;
use std::path::Path;
use std::sync::{Arc, Mutex};

use super::*;
use crate::LoadOptions;

fn goldens() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/goldens")
}

fn tagger() -> Tagger {
    let folder = goldens().join("timm/vit-wd");
    let options = LoadOptions::default().batch_size(2);
    Tagger::load(folder.to_str().unwrap(), &options).unwrap()
}

/// A folder with pictures in it and below it, a broken one among them.
fn folder() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let picture = |to: &str, from: &str| {
        let to = dir.path().join(to);
        fs::create_dir_all(to.parent().unwrap()).unwrap();
        fs::copy(goldens().join("pixels").join(from), to).unwrap();
    };
    picture("a.png", "rgb.png");
    picture("b.JPG", "jpeg-420.jpg");
    picture("deep/er/c.webp", "webp-lossy.webp");
    picture("deep/d.gif", "gif.gif");
    picture(".hidden/e.png", "rgb.png");
    fs::write(dir.path().join("broken.png"), b"no picture").unwrap();
    fs::write(dir.path().join("notes.md"), b"no picture either").unwrap();
    dir
}

fn options(output: OutputOptions) -> FolderOptions {
    let scan = ScanOptions::default().recursive(true);
    FolderOptions { scan, output }
}

fn run(dir: &Path, options: FolderOptions) -> Result<(Summary, Vec<String>)> {
    let mut seen = Vec::new();
    let run = FolderRun::new(&[dir.to_owned()], options)?;
    let tags = TagOptions::default().threshold(0.5);
    let caption = CaptionOptions::default();
    let summary = run.run(&tagger(), &tags, &caption, &Control::new(), |record| {
        seen.push(record.path.strip_prefix(dir).unwrap().display().to_string());
    })?;
    Ok((summary, seen))
}

/// All files below a folder with their content, sorted.
fn files(dir: &Path) -> Vec<(String, String)> {
    let mut files = Vec::new();
    let mut folders = vec![dir.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else {
                let name = path.strip_prefix(dir).unwrap().display().to_string();
                files.push((name, fs::read_to_string(path).unwrap()));
            }
        }
    }
    files.sort();
    files
}

fn names(files: &[(String, String)]) -> Vec<&str> {
    files.iter().map(|(name, _)| name.as_str()).collect()
}

#[test]
fn every_picture_is_answered_in_order_and_the_tree_is_mirrored() {
    let (dir, out) = (folder(), tempfile::tempdir().unwrap());
    let output = OutputOptions::new(Format::Sidecar).folder(out.path());
    let (summary, seen) = run(dir.path(), options(output)).unwrap();
    assert_eq!(seen, ["a.png", "b.JPG", "broken.png", "deep/d.gif", "deep/er/c.webp"]);
    assert_eq!((summary.tagged, summary.skipped, summary.failures.len()), (4, 0, 1));
    assert!(summary.failures[0].0.ends_with("broken.png"));
    let files = files(out.path());
    assert_eq!(names(&files), ["a.txt", "b.txt", "deep/d.txt", "deep/er/c.txt"]);
    assert!(files.iter().all(|(_, text)| text.ends_with('\n') && text.len() > 1));
}

#[test]
fn progress_counts_up_to_the_pictures_that_are_left() {
    let dir = folder();
    let seen = Arc::new(Mutex::new(Vec::new()));
    let sink = Arc::clone(&seen);
    let control = Control::new().on_progress(move |p| sink.lock().unwrap().push((p.done, p.total)));
    fs::write(dir.path().join("a.txt"), "my tag").unwrap();
    let output = OutputOptions::new("sidecar".parse().unwrap()).existing(Existing::Skip);
    let run = FolderRun::new(&[dir.path().to_owned()], options(output)).unwrap();
    let (tags, caption) = (TagOptions::default(), CaptionOptions::default());
    run.run(&tagger(), &tags, &caption, &control, |_| ()).unwrap();
    assert_eq!(*seen.lock().unwrap(), [1, 2, 3, 4].map(|done| (done, Some(4))));
    let unknown = "text".parse::<Format>().unwrap_err();
    assert!(unknown.to_string().contains("sidecar, json, jsonl, csv"), "{unknown}");
}

#[test]
fn without_recursion_folders_below_are_left_out() {
    let dir = folder();
    let mut options = options(OutputOptions::default());
    options.scan.recursive = false;
    assert_eq!(run(dir.path(), options).unwrap().1, ["a.png", "b.JPG", "broken.png"]);
    let missing = FolderRun::new(&["does/not/exist".into()], FolderOptions::default()).unwrap();
    let (tags, caption) = (TagOptions::default(), CaptionOptions::default());
    let summary = missing.run(&tagger(), &tags, &caption, &Control::new(), |_| ()).unwrap();
    assert_eq!(summary.failures[0].1.kind(), ErrorKind::Io);
}

#[test]
fn lines_of_json_and_csv_hold_every_answer() {
    let (dir, out) = (folder(), tempfile::tempdir().unwrap());
    for format in [Format::Jsonl, Format::Csv] {
        run(dir.path(), options(OutputOptions::new(format).folder(out.path()))).unwrap();
    }
    let files = files(out.path());
    assert_eq!(names(&files), ["tags.csv", "tags.jsonl"]);
    let lines: Vec<serde_json::Value> =
        files[1].1.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines.len(), 5);
    assert_eq!(lines[2]["error"]["code"], "image_decode");
    let keys: Vec<_> = lines[0].as_object().unwrap().keys().collect();
    assert_eq!(keys, ["path", "ratings", "characters", "tags"]);
    assert_eq!(lines[0]["ratings"].as_object().unwrap().len(), 4);
    let mut reader = csv::Reader::from_reader(files[0].1.as_bytes());
    let rows: Vec<_> = reader.records().map(Result::unwrap).collect();
    assert_eq!(rows.len(), 5);
    assert!(rows[2][4].starts_with("image_decode: "));
}

#[test]
fn existing_texts_are_replaced_kept_or_extended() {
    let dir = folder();
    let text = dir.path().join("a.txt");
    let with = |existing| options(OutputOptions::new(Format::Sidecar).existing(existing));
    fs::write(&text, "my tag").unwrap();
    let (summary, seen) = run(dir.path(), with(Existing::Skip)).unwrap();
    assert_eq!((summary.skipped, seen.len()), (1, 4));
    assert_eq!(fs::read_to_string(&text).unwrap(), "my tag");
    // What failed has no file, so it is tried again.
    assert_eq!(run(dir.path(), with(Existing::Skip)).unwrap().1, ["broken.png"]);
    run(dir.path(), with(Existing::Append)).unwrap();
    let once = fs::read_to_string(&text).unwrap();
    assert!(once.starts_with("my tag, "), "{once}");
    run(dir.path(), with(Existing::Append)).unwrap();
    assert_eq!(fs::read_to_string(&text).unwrap(), once);
    run(dir.path(), with(Existing::Overwrite)).unwrap();
    assert_eq!(format!("my tag, {}", fs::read_to_string(&text).unwrap()), once);
}

#[test]
fn a_killed_run_goes_on_where_it_stopped() {
    for format in [Format::Jsonl, Format::Csv] {
        let (dir, out) = (folder(), tempfile::tempdir().unwrap());
        let output = || OutputOptions::new(format).folder(out.path());
        run(dir.path(), options(output())).unwrap();
        let (name, whole) = files(out.path()).remove(0);
        // Killed at every point of the file: the second run completes it, whatever was there.
        for cut in (0..whole.len()).step_by(97) {
            fs::write(out.path().join(&name), &whole[..cut]).unwrap();
            let output = output().existing(Existing::Skip);
            let (summary, _) = run(dir.path(), options(output)).unwrap();
            let text = fs::read_to_string(out.path().join(&name)).unwrap();
            let tagged = |text: &str| {
                let mut lines: Vec<_> = text
                    .lines()
                    .filter(|l| !l.contains("image_decode"))
                    .map(str::to_owned)
                    .collect();
                lines.sort();
                lines
            };
            assert_eq!(tagged(&text), tagged(&whole), "{format:?} cut at {cut}");
            assert_eq!(summary.tagged + summary.skipped, 4);
        }
    }
}

/// The paths of the lines of a file, sorted, and how many of them are failures.
fn answered(text: &str, format: Format) -> (Vec<String>, usize) {
    let mut paths = Vec::new();
    let mut failures = 0;
    if format == Format::Csv {
        for record in csv::Reader::from_reader(text.as_bytes()).records().map(Result::unwrap) {
            failures += usize::from(!record[4].is_empty());
            paths.push(record[0].to_owned());
        }
    } else {
        for line in text.lines() {
            let line: serde_json::Value = serde_json::from_str(line).unwrap();
            failures += usize::from(line.get("error").is_some());
            paths.push(line["path"].as_str().unwrap().to_owned());
        }
    }
    paths.sort();
    (paths, failures)
}

#[test]
fn a_picture_has_one_line_however_often_it_was_tried() {
    for format in [Format::Jsonl, Format::Csv] {
        let (dir, out) = (folder(), tempfile::tempdir().unwrap());
        // Its name is quoted in CSV.
        let broken = dir.path().join("bro,ken.png");
        fs::rename(dir.path().join("broken.png"), &broken).unwrap();
        let again = || {
            let output = OutputOptions::new(format).folder(out.path()).existing(Existing::Skip);
            run(dir.path(), options(output)).unwrap().0
        };
        let text = || {
            let mut files = files(out.path());
            assert_eq!(files.len(), 1, "{files:?}");
            files.remove(0).1
        };
        again();
        let failed = text();
        let (paths, failures) = answered(&failed, format);
        assert_eq!((paths.len(), failures), (5, 1));
        // It fails again: the new failure takes the place of the old one.
        assert_eq!((again().failures.len(), answered(&text(), format)), (1, (paths.clone(), 1)));
        // It is repaired.
        fs::copy(dir.path().join("a.png"), &broken).unwrap();
        let summary = again();
        assert_eq!((summary.tagged, summary.skipped), (1, 4));
        let whole = text();
        assert_eq!(answered(&whole, format), (paths, 0));
        // Files of earlier versions may have both lines.
        let name = out.path().join(&files(out.path())[0].0);
        let failure = failed.lines().find(|line| line.contains("bro,ken")).unwrap();
        let (head, rest) = whole.split_once('\n').unwrap();
        fs::write(&name, format!("{head}\n{failure}\n{rest}")).unwrap();
        assert_eq!(again().skipped, 5);
        assert_eq!(text(), whole);
        // Failures of pictures that are not in this run are all that is known of them.
        let other = format!("{whole}{}\n", failure.replace("bro,ken", "other"));
        fs::write(&name, &other).unwrap();
        assert_eq!((again().skipped, text()), (5, other));
    }
}

#[test]
fn clashing_names_are_found_before_anything_is_written() {
    let dir = folder();
    fs::copy(dir.path().join("a.png"), dir.path().join("a.webp")).unwrap();
    let error = run(dir.path(), options(OutputOptions::new(Format::Sidecar))).unwrap_err();
    assert!(error.to_string().contains("a.png") && error.to_string().contains("a.webp"), "{error}");
    assert!(!dir.path().join("b.txt").exists());
    let output = OutputOptions::new(Format::Json).full_names(true);
    run(dir.path(), options(output)).unwrap();
    assert!(dir.path().join("a.png.json").exists() && dir.path().join("a.webp.json").exists());
}

#[test]
fn outputs_that_make_no_sense_are_refused() {
    let dir = folder();
    for output in [
        OutputOptions::new(Format::Jsonl),
        OutputOptions::new(Format::Json).existing(Existing::Append),
    ] {
        let error = run(dir.path(), options(output)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput);
    }
}

#[test]
fn a_cancelled_run_keeps_what_it_has() {
    let (dir, out) = (folder(), tempfile::tempdir().unwrap());
    let output = OutputOptions::new(Format::Jsonl).folder(out.path());
    let run = FolderRun::new(&[dir.path().to_owned()], options(output)).unwrap();
    let control = Control::new();
    let (tags, caption) = (TagOptions::default(), CaptionOptions::default());
    let summary = run.run(&tagger(), &tags, &caption, &control, |_| control.cancel()).unwrap();
    assert!(summary.cancelled);
    let text = fs::read_to_string(out.path().join("tags.jsonl")).unwrap();
    assert_eq!(text.lines().count(), summary.tagged + summary.failures.len());
    assert!(summary.tagged >= 1 && summary.tagged < 4);
}
