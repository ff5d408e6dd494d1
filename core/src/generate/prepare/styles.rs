//! Styles: texts around a prompt, by name. Files of the user's Fooocus are read, and a few of our own stand under the
//! names that are chosen there by default.

use std::path::Path;

use serde::Deserialize;

use crate::error::{Error, ErrorKind, Result};

/// The style that stands for another network, which writes more prompt.
pub(super) const EXPANSION: &str = "Fooocus V2";
/// The style that stands for any other.
pub(super) const RANDOM: &str = "Random Style";
/// What is replaced by the prompt.
const PLACE: &str = "{prompt}";
/// Files that are read last, in this order; others come before them, by name.
const LAST: [&str; 6] = ["fooocus", "sai", "mre", "twri", "diva", "marc_k3nt3l"];
/// Longest file of styles.
const MAX_FILE: u64 = 16 << 20;

/// Name, text and negative text of our own.
const OWN: [(&str, &str, &str); 8] = [
    (
        "Fooocus Enhance",
        "",
        "low quality, blurred, out of focus, noise, jpeg artifacts, badly drawn, wrong anatomy, extra \
         limbs, deformed hands, text, watermark, frame",
    ),
    (
        "Fooocus Semi Realistic",
        "",
        "plastic skin, flat colours, cartoon, sketch, doll, washed out, low detail, wrong anatomy",
    ),
    (
        "Fooocus Sharp",
        "{prompt}, in sharp focus, crisp edges, fine texture, clear light, detailed",
        "blurred, soft focus, smeared, low contrast, noise, flat, drawing",
    ),
    (
        "Fooocus Masterpiece",
        "{prompt}, masterful work, careful composition, rich detail, beautiful light",
        "careless, unfinished, low quality, wrong anatomy, text, signature",
    ),
    (
        "Fooocus Photograph",
        "photograph of {prompt}, 50 mm lens, natural light, true colours, fine grain",
        "painting, drawing, render, cartoon, oversaturated",
    ),
    (
        "Fooocus Negative",
        "",
        "worst quality, low resolution, distorted, duplicate, cropped, ugly, disfigured, watermark, text",
    ),
    (
        "Fooocus Cinematic",
        "film still of {prompt}, wide shot, dramatic light, shallow depth of field, colour graded",
        "snapshot, cartoon, drawing, flat light, overexposed",
    ),
    (
        "Fooocus Pony",
        "score_9, score_8_up, score_7_up, {prompt}",
        "score_4, score_5, score_6, low quality, text, signature",
    ),
];

/// A style.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Style {
    pub(super) name: String,
    prompt: String,
    negative_prompt: String,
}

/// All styles, in the order in which they were read.
#[derive(Clone, Debug)]
pub(super) struct Styles(Vec<Style>);

#[derive(Deserialize)]
struct Entry {
    name: String,
    prompt: Option<String>,
    negative_prompt: Option<String>,
}

impl Default for Styles {
    fn default() -> Self {
        let own = |(name, prompt, negative): &(&str, &str, &str)| Style {
            name: (*name).to_owned(),
            prompt: (*prompt).to_owned(),
            negative_prompt: (*negative).to_owned(),
        };
        Self(OWN.iter().map(own).collect())
    }
}

impl Styles {
    /// Those of the JSON files in a folder in place of our own. Of two with one name the later one counts, in
    /// the place of the earlier one.
    pub(super) fn read(folder: &Path) -> Result<Self> {
        let failed = |e: std::io::Error| {
            Error::new(ErrorKind::ModelNotFound, format!("cannot read the folder of styles: {e}"))
                .with("folder", folder.display())
        };
        let entries = std::fs::read_dir(folder).map_err(failed)?;
        let files = entries.filter_map(|entry| Some(entry.ok()?.path()));
        let mut files: Vec<_> =
            files.filter(|file| file.extension().is_some_and(|ending| ending == "json")).collect();
        files.sort_by_key(|file| {
            let name = file.file_stem().map(|name| name.to_string_lossy().into_owned());
            let name = name.unwrap_or_default();
            let known = name.strip_prefix("sdxl_styles_");
            (LAST.iter().position(|last| known == Some(last)).map_or(0, |i| i + 1), name)
        });
        let mut styles = Self(Vec::new());
        for file in files {
            styles.add(&file).map_err(|e| e.with("file", file.display()))?;
        }
        if styles.0.is_empty() {
            let message = "there are no styles in the folder";
            return Err(Error::invalid_input(message).with("folder", folder.display()));
        }
        Ok(styles)
    }

    fn add(&mut self, file: &Path) -> Result<()> {
        let failed = |e| Error::new(ErrorKind::Io, format!("cannot read styles: {e}"));
        if std::fs::metadata(file).map_err(failed)?.len() > MAX_FILE {
            return Err(Error::invalid_input("the file of styles is too long"));
        }
        let text = std::fs::read_to_string(file).map_err(failed)?;
        let entries: Vec<Entry> = serde_json::from_str(&text).map_err(|e| {
            Error::invalid_input(format!("no list of styles with a `name` each: {e}"))
        })?;
        for Entry { name, prompt, negative_prompt } in entries {
            let name = normal(&name);
            let (prompt, negative_prompt) =
                (prompt.unwrap_or_default(), negative_prompt.unwrap_or_default());
            let style = Style { name, prompt, negative_prompt };
            match self.0.iter_mut().find(|known| known.name == style.name) {
                Some(known) => *known = style,
                None => self.0.push(style),
            }
        }
        Ok(())
    }

    pub(super) fn all(&self) -> &[Style] {
        &self.0
    }

    /// The style of this name.
    pub(super) fn get(&self, name: &str) -> Result<&Style> {
        self.0.iter().find(|style| style.name == name).ok_or_else(|| {
            let known: Vec<_> = self.0.iter().take(20).map(|style| &*style.name).collect();
            let more = if self.0.len() > known.len() { ", ..." } else { "" };
            let message = format!("unknown style `{name}`; known: {}{more}", known.join(", "));
            Error::invalid_input(message).with("field", "styles")
        })
    }
}

impl Style {
    /// The texts for a prompt, those against it, and whether the prompt is in them.
    pub(super) fn around(&self, prompt: &str) -> (Vec<String>, Vec<String>, bool) {
        let lines = |text: &str| text.lines().map(str::to_owned).collect();
        let has_place = self.prompt.contains(PLACE);
        (lines(&self.prompt.replace(PLACE, prompt)), lines(&self.negative_prompt), has_place)
    }
}

/// Words with a capital each, without dashes, as Fooocus shows names.
fn normal(name: &str) -> String {
    let capital = |word: &str| {
        let mut letters = word.chars();
        let first = letters.next().map(char::to_uppercase).into_iter().flatten();
        first.chain(letters.flat_map(char::to_lowercase)).collect::<String>()
    };
    let words: Vec<String> = name.replace('-', " ").split(' ').map(capital).collect();
    [("3d", "3D"), ("Sai", "SAI"), ("Mre", "MRE"), ("(s", "(S")]
        .into_iter()
        .fold(words.join(" "), |name, (from, to)| name.replace(from, to))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_as_fooocus_shows_them() {
        for (name, expected) in [
            ("sai-3d-model", "SAI 3D Model"),
            ("mre-comic", "MRE Comic"),
            ("Fooocus V2", "Fooocus V2"),
            ("ads-food photography", "Ads Food Photography"),
            ("futuristic (single)", "Futuristic (Single)"),
            ("", ""),
        ] {
            assert_eq!(normal(name), expected);
        }
    }

    #[test]
    fn files_are_read_in_their_order() {
        let folder = std::env::temp_dir().join(format!("tagbrush-styles-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let write = |name: &str, text: &str| std::fs::write(folder.join(name), text).unwrap();
        let names = || -> Vec<String> {
            Styles::read(&folder).unwrap().all().iter().map(|style| style.name.clone()).collect()
        };
        assert!(Styles::read(&folder).unwrap_err().to_string().contains("no styles"));
        write(
            "sdxl_styles_sai.json",
            r#"[{"name": "sai-anime", "prompt": "anime {prompt}\nline"}]"#,
        );
        write(
            "sdxl_styles_fooocus.json",
            r#"[{"name": "Fooocus Sharp", "negative_prompt": "soft"}]"#,
        );
        write("zz.json", r#"[{"name": "mine", "x": 1}, {"name": "sai anime", "prompt": "old"}]"#);
        write("notes.txt", "no styles");
        assert_eq!(names(), ["Mine", "SAI Anime", "Fooocus Sharp"]);
        let styles = Styles::read(&folder).unwrap();
        let anime = styles.get("SAI Anime").unwrap().around("a cat");
        assert_eq!(anime, (vec!["anime a cat".to_owned(), "line".to_owned()], vec![], true));
        let sharp = styles.get("Fooocus Sharp").unwrap().around("a cat");
        assert_eq!(sharp, (vec![], vec!["soft".to_owned()], false));
        let error = styles.get("Fooocus Enhance").unwrap_err().to_string();
        assert!(error.contains("SAI Anime") && error.contains("field=styles"), "{error}");
        for bad in ["{}", "[1]", r#"[{"prompt": "a"}]"#, "["] {
            write("zz.json", bad);
            let error = Styles::read(&folder).unwrap_err().to_string();
            assert!(error.contains("zz.json"), "{error}");
        }
        std::fs::remove_dir_all(&folder).unwrap();
        assert!(Styles::read(&folder).unwrap_err().to_string().contains("tagbrush-styles"));
    }

    #[test]
    fn our_own_stand_under_the_default_names() {
        let styles = Styles::default();
        for name in ["Fooocus Enhance", "Fooocus Sharp"] {
            let (_, against, _) = styles.get(name).unwrap().around("x");
            assert!(!against.is_empty());
        }
        let (with, _, has_place) = styles.get("Fooocus Sharp").unwrap().around("a {b}");
        assert!(has_place && with[0].starts_with("a {b}, "));
    }
}
