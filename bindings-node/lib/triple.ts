// The name of a platform.

/** What this platform is called in the name of the compiled file: `linux-x64-gnu`. */
export function platformTriple(): string {
  const { platform, arch } = process;
  if (platform === "win32") return `${platform}-${arch}-msvc`;
  if (platform !== "linux") return `${platform}-${arch}`;
  const { glibcVersionRuntime } = (process.report.getReport() as { header: { glibcVersionRuntime?: string } }).header;
  return `${platform}-${arch}-${glibcVersionRuntime ? "gnu" : "musl"}`;
}
