// A component that is drawn again only when one of its properties is another. (preact/compat has one too, but loading it turns
// every onChange of the page into onInput.)
import { Component, type FunctionComponent } from "preact";

export function memo<P extends object>(Inner: FunctionComponent<P>): new () => Component<P> {
  return class extends Component<P> {
    override shouldComponentUpdate(next: Readonly<P>): boolean {
      const keys = new Set([...Object.keys(next), ...Object.keys(this.props)]) as Set<keyof P>;
      return [...keys].some((key) => key !== "children" && next[key] !== this.props[key]);
    }
    render(props: P) {
      return <Inner {...props} />;
    }
  };
}
