package javax.imageio.spi;

import java.util.ArrayList;
import java.util.Iterator;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.ServiceLoader;

/**
 * In place of the class that Java brings, by --patch-module: OGC's suite keeps services of its own in such registries, which Java
 * allows for image formats only since its version 9. To the public interface of that class, written anew.
 */
public class ServiceRegistry {
    /** Of each category its providers by class, in the order in which they came. */
    private final Map<Class<?>, Map<Class<?>, Object>> providers = new LinkedHashMap<>();
    /** Of each category pairs of providers: the first before the second. */
    private final Map<Class<?>, List<Object[]>> orderings = new LinkedHashMap<>();

    public interface Filter {
        boolean filter(Object provider);
    }

    public ServiceRegistry(Iterator<Class<?>> categories) {
        while (categories.hasNext()) {
            Class<?> category = categories.next();
            providers.put(category, new LinkedHashMap<>());
            orderings.put(category, new ArrayList<>());
        }
    }

    public static <T> Iterator<T> lookupProviders(Class<T> service, ClassLoader loader) {
        ServiceRegistry.class.getModule().addUses(service);
        return ServiceLoader.load(service, loader).iterator();
    }

    public static <T> Iterator<T> lookupProviders(Class<T> service) {
        return lookupProviders(service, Thread.currentThread().getContextClassLoader());
    }

    public Iterator<Class<?>> getCategories() {
        return new ArrayList<>(providers.keySet()).iterator();
    }

    private <V> V of(Map<Class<?>, V> map, Class<?> category) {
        V found = map.get(category);
        if (found == null) {
            throw new IllegalArgumentException("no such category: " + category);
        }
        return found;
    }

    public synchronized <T> boolean registerServiceProvider(T provider, Class<T> category) {
        Object before = of(providers, category).put(provider.getClass(), provider);
        if (before instanceof RegisterableService) {
            ((RegisterableService) before).onDeregistration(this, category);
        }
        if (provider instanceof RegisterableService) {
            ((RegisterableService) provider).onRegistration(this, category);
        }
        return before == null;
    }

    @SuppressWarnings("unchecked")
    public void registerServiceProvider(Object provider) {
        for (Class<?> category : providers.keySet()) {
            if (category.isInstance(provider)) {
                registerServiceProvider(provider, (Class<Object>) category);
            }
        }
    }

    public void registerServiceProviders(Iterator<?> all) {
        while (all.hasNext()) {
            registerServiceProvider(all.next());
        }
    }

    public synchronized <T> boolean deregisterServiceProvider(T provider, Class<T> category) {
        boolean removed = of(providers, category).remove(provider.getClass(), provider);
        if (removed && provider instanceof RegisterableService) {
            ((RegisterableService) provider).onDeregistration(this, category);
        }
        return removed;
    }

    @SuppressWarnings("unchecked")
    public void deregisterServiceProvider(Object provider) {
        for (Class<?> category : providers.keySet()) {
            deregisterServiceProvider(provider, (Class<Object>) category);
        }
    }

    public synchronized boolean contains(Object provider) {
        return providers.values().stream().anyMatch(known -> known.get(provider.getClass()) == provider);
    }

    @SuppressWarnings("unchecked")
    public synchronized <T> Iterator<T> getServiceProviders(Class<T> category, boolean useOrdering) {
        List<Object> rest = new ArrayList<>(of(providers, category).values());
        if (!useOrdering) {
            return (Iterator<T>) rest.iterator();
        }
        List<Object> ordered = new ArrayList<>();
        while (!rest.isEmpty()) {
            // In a circle any of them is the first.
            Object next = rest.stream().filter(p -> isFirst(p, rest, category)).findFirst().orElse(rest.get(0));
            ordered.add(next);
            rest.remove(next);
        }
        return (Iterator<T>) ordered.iterator();
    }

    private boolean isFirst(Object provider, List<Object> among, Class<?> category) {
        return of(orderings, category).stream().noneMatch(pair -> pair[1] == provider && among.contains(pair[0]));
    }

    public <T> Iterator<T> getServiceProviders(Class<T> category, Filter filter, boolean useOrdering) {
        List<T> wanted = new ArrayList<>();
        getServiceProviders(category, useOrdering).forEachRemaining(p -> {
            if (filter == null || filter.filter(p)) {
                wanted.add(p);
            }
        });
        return wanted.iterator();
    }

    public synchronized <T> T getServiceProviderByClass(Class<T> provider) {
        for (Map.Entry<Class<?>, Map<Class<?>, Object>> category : providers.entrySet()) {
            if (category.getKey().isAssignableFrom(provider) && category.getValue().containsKey(provider)) {
                return provider.cast(category.getValue().get(provider));
            }
        }
        return null;
    }

    public synchronized <T> boolean setOrdering(Class<T> category, T first, T second) {
        unsetOrdering(category, second, first);
        boolean known = of(orderings, category).stream().anyMatch(pair -> pair[0] == first && pair[1] == second);
        return !known && of(orderings, category).add(new Object[] {first, second});
    }

    public synchronized <T> boolean unsetOrdering(Class<T> category, T first, T second) {
        return of(orderings, category).removeIf(pair -> pair[0] == first && pair[1] == second);
    }

    public synchronized void deregisterAll(Class<?> category) {
        new ArrayList<>(of(providers, category).values()).forEach(this::deregisterServiceProvider);
    }

    public void deregisterAll() {
        providers.keySet().forEach(this::deregisterAll);
    }
}
