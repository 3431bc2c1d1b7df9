//! Which file of src imports which: `use` trees, paths in code and in macros, read with syn. What
//! is for tests only is left out.
//!
//! What a `mod.rs` re-exports counts for the file that defines it. Imports by `*` through another
//! module are not followed.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use proc_macro2::{TokenStream, TokenTree};
use syn::visit::{self, Visit};

/// `["daemon", "guard"]`: src/daemon/guard/mod.rs, or src/daemon/guard.rs.
pub(crate) type Module = Vec<String>;

/// The files from which each file imports.
pub(crate) type Imports = BTreeMap<Module, BTreeSet<Module>>;

#[derive(Default)]
struct File {
    /// What is named, from the module that names it.
    paths: Vec<(Module, Vec<String>)>,
    bindings: Bindings,
    /// Modules that only tests have.
    of_tests: Vec<Module>,
}

pub(crate) struct Source {
    files: BTreeMap<Module, File>,
    bindings: Bindings,
}

/// What `use` gives a name, by module.
type Bindings = BTreeMap<Module, BTreeMap<String, Vec<String>>>;

impl Source {
    pub(crate) fn read(root: &Path) -> Self {
        let mut files = BTreeMap::new();
        read_below(root, &mut Vec::new(), &mut files);
        let of_tests: Vec<Module> = files
            .values()
            .flat_map(|file: &File| file.of_tests.clone())
            .collect();
        files.retain(|module, _| !of_tests.contains(module));
        let bindings = files
            .values_mut()
            .map(|file| std::mem::take(&mut file.bindings));
        let bindings = bindings.flatten().collect();
        Self { files, bindings }
    }

    pub(crate) fn imports(&self) -> Imports {
        let imports = |(module, file): (&Module, &File)| {
            let paths = file.paths.iter();
            let found = paths.filter_map(|(from, path)| self.resolve(from, path, 0));
            let others = found.filter(|found| found != module).collect();
            (module.clone(), others)
        };
        self.files.iter().map(imports).collect()
    }

    /// The file that defines what `path` means in the module `from`; `None`: another crate, or
    /// something of this very module.
    fn resolve(&self, from: &[String], path: &[String], depth: usize) -> Option<Module> {
        let (first, rest) = path.split_first()?;
        match first.as_str() {
            _ if depth > 8 => None,
            "crate" => self.descend(Vec::new(), rest, depth),
            "self" => self.descend(from.to_vec(), rest, depth),
            "super" => match rest.first().map(String::as_str) {
                Some("super") => self.resolve(&from[..from.len() - 1], rest, depth),
                _ => self.descend(from[..from.len() - 1].to_vec(), rest, depth),
            },
            name if self.is_module(from, name) || self.binding(from, name).is_some() => {
                self.descend(from.to_vec(), path, depth)
            }
            _ => None,
        }
    }

    fn descend(&self, mut at: Module, path: &[String], depth: usize) -> Option<Module> {
        for (index, name) in path.iter().enumerate() {
            if self.is_module(&at, name) {
                at.push(name.clone());
            } else if let Some(target) = self.binding(&at, name) {
                let target = [target, &path[index + 1..]].concat();
                return self.resolve(&at, &target, depth + 1);
            } else {
                break;
            }
        }
        // A module in the middle of a file is that file.
        while !self.files.contains_key(&at) {
            at.pop()?;
        }
        Some(at)
    }

    fn is_module(&self, at: &[String], name: &str) -> bool {
        self.files.contains_key(&[at, &[name.to_owned()]].concat())
    }

    fn binding(&self, at: &[String], name: &str) -> Option<&[String]> {
        self.bindings.get(at)?.get(name).map(Vec::as_slice)
    }
}

fn read_below(directory: &Path, module: &mut Module, files: &mut BTreeMap<Module, File>) {
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_stem().unwrap().to_str().unwrap().to_owned();
        if path.is_dir() {
            module.push(name);
            read_below(&path, module, files);
            module.pop();
        } else if path.extension().is_some_and(|extension| extension == "rs") && name != "main" {
            let is_own = ["mod", "lib"].contains(&name.as_str());
            let mut of_file = module.clone();
            of_file.extend((!is_own).then_some(name));
            let text = fs::read_to_string(&path).unwrap();
            files.insert(of_file.clone(), read(&text, of_file));
        }
    }
}

fn read(text: &str, module: Module) -> File {
    let mut reader = Reader {
        module,
        file: File::default(),
    };
    reader.visit_file(&syn::parse_file(text).unwrap());
    reader.file
}

struct Reader {
    module: Module,
    file: File,
}

impl Reader {
    fn note(&mut self, path: Vec<String>) {
        self.file.paths.push((self.module.clone(), path));
    }

    fn note_use(&mut self, prefix: &[String], tree: &syn::UseTree) {
        let with = |name: &syn::Ident| [prefix, &[name.to_string()]].concat();
        let (path, name) = match tree {
            syn::UseTree::Path(tree) => return self.note_use(&with(&tree.ident), &tree.tree),
            syn::UseTree::Group(group) => {
                return group
                    .items
                    .iter()
                    .for_each(|tree| self.note_use(prefix, tree));
            }
            syn::UseTree::Glob(_) => return self.note(prefix.to_vec()),
            syn::UseTree::Name(tree) if tree.ident == "self" => {
                (prefix.to_vec(), prefix.last().unwrap().clone())
            }
            syn::UseTree::Name(tree) => (with(&tree.ident), tree.ident.to_string()),
            syn::UseTree::Rename(tree) => (with(&tree.ident), tree.rename.to_string()),
        };
        self.note(path.clone());
        // `use serve::Server`, of a name to itself, would go round.
        if path != [name.clone()] {
            let names = self.file.bindings.entry(self.module.clone()).or_default();
            names.insert(name, path);
        }
    }

    /// `a::b::c` in the arguments of a macro.
    fn note_tokens(&mut self, tokens: TokenStream) {
        let mut path = Vec::new();
        let mut colons = 0;
        for token in tokens {
            match token {
                TokenTree::Ident(ident) if path.is_empty() || colons == 2 => {
                    path.push(ident.to_string());
                    colons = 0;
                    continue;
                }
                TokenTree::Punct(punct) if punct.as_char() == ':' && !path.is_empty() => {
                    colons += 1;
                    continue;
                }
                TokenTree::Group(group) => self.note_tokens(group.stream()),
                TokenTree::Ident(ident) => {
                    self.note(std::mem::replace(&mut path, vec![ident.to_string()]));
                    colons = 0;
                    continue;
                }
                _ => {}
            }
            self.note(std::mem::take(&mut path));
            colons = 0;
        }
        self.note(path);
    }
}

fn is_for_tests(attributes: &[syn::Attribute]) -> bool {
    attributes.iter().any(|attribute| match &attribute.meta {
        syn::Meta::List(list) => {
            list.path.is_ident("cfg") && list.tokens.to_string().trim() == "test"
        }
        meta => meta.path().is_ident("test"),
    })
}

impl<'ast> Visit<'ast> for Reader {
    fn visit_item_mod(&mut self, item: &'ast syn::ItemMod) {
        self.module.push(item.ident.to_string());
        match (is_for_tests(&item.attrs), &item.content) {
            (true, None) => self.file.of_tests.push(self.module.clone()),
            (true, Some(_)) => {}
            (false, _) => visit::visit_item_mod(self, item),
        }
        self.module.pop();
    }

    fn visit_item_fn(&mut self, item: &'ast syn::ItemFn) {
        if !is_for_tests(&item.attrs) {
            visit::visit_item_fn(self, item);
        }
    }

    /// `pub(crate)` imports nothing.
    fn visit_visibility(&mut self, _: &'ast syn::Visibility) {}

    fn visit_item_use(&mut self, item: &'ast syn::ItemUse) {
        if !is_for_tests(&item.attrs) {
            self.note_use(&[], &item.tree);
        }
    }

    fn visit_path(&mut self, path: &'ast syn::Path) {
        let names = path
            .segments
            .iter()
            .map(|segment| segment.ident.to_string());
        self.note(names.collect());
        visit::visit_path(self, path);
    }

    fn visit_macro(&mut self, item: &'ast syn::Macro) {
        self.note_tokens(item.tokens.clone());
        visit::visit_macro(self, item);
    }

    /// `#[arg(value_parser = ...)]`
    fn visit_attribute(&mut self, attribute: &'ast syn::Attribute) {
        if let syn::Meta::List(list) = &attribute.meta {
            self.note_tokens(list.tokens.clone());
        }
    }
}

/// Files that import each other in a circle, each circle's together.
pub(crate) fn circles(imports: &Imports) -> Vec<Vec<Module>> {
    let reached: BTreeMap<&Module, BTreeSet<&Module>> = imports
        .keys()
        .map(|from| {
            let mut reached = BTreeSet::new();
            let mut next = vec![from];
            while let Some(module) = next.pop() {
                next.extend(
                    imports[module]
                        .iter()
                        .filter(|other| reached.insert(*other)),
                );
            }
            (from, reached)
        })
        .collect();
    let mut circles = Vec::new();
    for (module, others) in &reached {
        let mut circle = others
            .iter()
            .filter(|other| reached[**other].contains(module));
        // Told of with its first one.
        if others.contains(module) && circle.clone().all(|other| other >= module) {
            circles.push(circle.by_ref().map(|other| (*other).clone()).collect());
        }
    }
    circles
}
